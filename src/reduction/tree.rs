//! The one binary tree along which micro-batch gradients are summed, whoever computed them: pure index arithmetic.
//!
//! Node (level, index) is the sum of the leaves `index·2^level .. (index + 1)·2^level`. At the ragged end a node whose
//! sibling has no leaf stands for its parent too, so that every number of leaves gives one root.

/// A node of the tree over some number of leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    level: u32,
    index: usize,
}

impl Node {
    /// Leaf `index` of `leaves`.
    pub fn leaf(index: usize, leaves: usize) -> Self {
        Self { level: 0, index }.promoted(leaves)
    }

    /// The highest node with the same leaves.
    fn promoted(mut self, leaves: usize) -> Self {
        while self.index > 0 && self.index.is_multiple_of(2) && (self.index + 1) << self.level >= leaves {
            self = Self { level: self.level + 1, index: self.index / 2 };
        }
        self
    }

    /// Their sum, if the two are siblings.
    pub fn parent(self, right: Node, leaves: usize) -> Option<Node> {
        let siblings = self.level == right.level && self.index.is_multiple_of(2) && right.index == self.index + 1;
        siblings.then(|| Self { level: self.level + 1, index: self.index / 2 }.promoted(leaves))
    }

    /// The first leaf below it.
    pub fn first_leaf(self) -> usize {
        self.index << self.level
    }
}

/// An addition: what lies at place `from` is added to what lies at place `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addition {
    /// Where the sum goes.
    pub to: usize,
    /// What is added, and free after that.
    pub from: usize,
}

/// Nodes in the order of their leaves, each at a place; siblings merge as soon as they meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merger {
    /// What is left, each with its place.
    pub nodes: Vec<(Node, usize)>,
    /// What has to be added, in this order.
    pub additions: Vec<Addition>,
}

impl Merger {
    /// For so many nodes without further allocation.
    pub fn with_capacity(nodes: usize) -> Self {
        Self { nodes: Vec::with_capacity(nodes), additions: Vec::with_capacity(nodes) }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.additions.clear();
    }

    /// Takes the next leaf, which is added to the one before it if they are siblings, and no further.
    pub fn push_pair(&mut self, leaf: usize, place: usize, leaves: usize) {
        match self.nodes.last() {
            Some((left, to)) if leaf % 2 == 1 && *left == Node::leaf(leaf - 1, leaves) => {
                let (left, to) = (*left, *to);
                self.nodes.pop();
                self.nodes.extend(left.parent(Node::leaf(leaf, leaves), leaves).map(|parent| (parent, to)));
                self.additions.push(Addition { to, from: place });
            }
            _ => self.nodes.push((Node::leaf(leaf, leaves), place)),
        }
    }

    /// Takes the next node in the order of leaves.
    pub fn push(&mut self, node: Node, place: usize, leaves: usize) {
        self.nodes.push((node, place));
        while let [.., (left, to), (right, from)] = self.nodes[..]
            && let Some(parent) = left.parent(right, leaves)
        {
            self.nodes.truncate(self.nodes.len() - 2);
            self.nodes.push((parent, to));
            self.additions.push(Addition { to, from });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::own;
    use std::ops::Range;

    /// The sum by its definition, as text: a split at the largest power of two below the count.
    fn defined(leaves: Range<usize>) -> String {
        if leaves.len() == 1 {
            return leaves.start.to_string();
        }
        let half = 1 << (usize::BITS - 1 - (leaves.len() - 1).leading_zeros());
        let middle = leaves.start + half;
        format!("({}+{})", defined(leaves.start..middle), defined(middle..leaves.end))
    }

    /// The sum as merging gives it, each rank first merging what it holds.
    fn merged(leaves: usize, ranks: usize) -> String {
        let mut places: Vec<String> = (0..leaves).map(|leaf| leaf.to_string()).collect();
        let mut whole = Merger::default();
        for rank in 0..ranks {
            let mut mine = Merger::default();
            for leaf in own(leaves, rank, ranks) {
                mine.push(Node::leaf(leaf, leaves), leaf, leaves);
            }
            for Addition { to, from } in &mine.additions {
                places[*to] = format!("({}+{})", places[*to], places[*from]);
            }
            for (node, place) in mine.nodes {
                whole.push(node, place, leaves);
            }
        }
        for Addition { to, from } in &whole.additions {
            places[*to] = format!("({}+{})", places[*to], places[*from]);
        }
        assert_eq!(whole.nodes.len(), 1, "{leaves} leaves on {ranks} ranks: {:?}", whole.nodes);
        places[whole.nodes[0].1].clone()
    }

    #[test]
    fn any_number_of_ranks_follows_the_same_tree() {
        for leaves in 1..40 {
            let expected = defined(0..leaves);
            for ranks in 1..=leaves + 2 {
                assert_eq!(merged(leaves, ranks), expected, "{leaves} leaves on {ranks} ranks");
            }
        }
    }
}
