//! `residual`: y = layers(x) + shortcut(x), with an empty shortcut for x itself (He et al., 2015).
//! In torch: a module with `layers` and `shortcut`, both `torch.nn.Sequential`.

use super::registry::{Entry, Example, Place, find};
use super::{Backward, Element, Forward, Initial, Layer, Onto, Op, Pass, Plan, Stack};
use crate::arena::Layout;
use crate::config::Component;
use crate::error::Result;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use toml::Table;

pub(super) const ENTRY: Entry = Entry {
    name: "residual",
    about: "a list of layers plus a skip around it",
    keys: "layers = [...], shortcut = [] (layers on the skip; none: the input itself)",
    resolve,
    build_f32: build,
    build_f64: build,
    examples: &[
        Example {
            keys: "layers = [{ type = \"linear\", out_features = 4 }, { type = \"tanh\" }, { type = \"linear\", out_features = 3 }]",
            input: Shape::Vector { n: 3 },
        },
        Example {
            keys: "layers = [{ type = \"conv2d\", out_channels = 3, kernel_size = 3, padding = 1 }, { type = \"batch_norm2d\" }]\n\
                   shortcut = [{ type = \"conv2d\", out_channels = 3, kernel_size = 1, bias = false }]",
            input: Shape::Image { c: 2, h: 3, w: 4 },
        },
    ],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    layers: Vec<Table>,
    #[serde(default)]
    shortcut: Vec<Table>,
}

/// The tables as components, each knowing its place.
fn components(outer: &Component, list: &str, tables: Vec<Table>) -> Result<Vec<Component>> {
    let convert = |(index, mut table): (usize, Table)| {
        let path = format!("{list}[{index}]");
        match table.remove("type") {
            Some(toml::Value::String(kind)) => Ok(outer.part(&path, &kind, table)),
            _ => Err(outer.error(&path, "has no `type`", "give the layer's type, such as type = \"linear\"")),
        }
    };
    tables.into_iter().enumerate().map(convert).collect()
}

fn resolve(component: &Component) -> Result<Component> {
    let keys: Keys = component.parse()?;
    let mut table = Table::new();
    for (name, tables) in [("layers", keys.layers), ("shortcut", keys.shortcut)] {
        let resolved: Result<Vec<toml::Value>> = components(component, name, tables)?
            .iter()
            .map(|inner| Ok((find(inner)?.resolve)(inner)?.to_table("type").into()))
            .collect();
        table.insert(name.into(), resolved?.into());
    }
    Ok(Component { table, ..component.clone() })
}

struct Residual<T> {
    plan: Plan,
    main: Stack<T>,
    shortcut: Stack<T>,
    main_params: Range<usize>,
    shortcut_params: Range<usize>,
    main_state: Range<usize>,
    shortcut_state: Range<usize>,
}

fn build<T: Element>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    if keys.layers.is_empty() {
        return Err(component.error("layers", "is empty", "give at least one layer"));
    }
    let main = components(component, "layers", keys.layers)?;
    let side = components(component, "shortcut", keys.shortcut)?;
    let main_stack = Stack::<T>::build(&main, place, "layers.")?;
    let shortcut = Stack::<T>::build(&side, place, "shortcut.")?;
    if main_stack.output() != shortcut.output() {
        let what = format!("the layers give {}, the shortcut {}", main_stack.output(), shortcut.output());
        return Err(component.error(
            "shortcut",
            what,
            "make both the same shape, for example by a 1x1 conv2d in shortcut",
        ));
    }
    let op = Op::Residual { layers: main_stack.described(), shortcut: shortcut.described() };
    let mut plan = Plan::new(op, main_stack.output());
    let main_params = adopt(&mut plan, &main_stack);
    let shortcut_params = adopt(&mut plan, &shortcut);
    let (main_state, shortcut_state) = (adopt_state(&mut plan, &main_stack), adopt_state(&mut plan, &shortcut));
    plan.stops = main_stack.stops() + shortcut.stops();
    plan.sums = main_stack.sums_len().max(shortcut.sums_len());
    let inner = || main_stack.plans().chain(shortcut.plans()).map(|(_, _, _, plan)| plan);
    plan.streams = inner().flat_map(|plan| plan.streams.clone()).collect();
    plan.statistics = inner().flat_map(|plan| plan.statistics.clone()).collect();
    plan.flops = inner().map(|plan| plan.flops).sum();
    plan.work = Some(inner().map(Plan::work).fold((0, 0), |sum, work| (sum.0 + work.0, sum.1 + work.1)));
    Ok(Box::new(Residual {
        plan,
        main: main_stack,
        shortcut,
        main_params,
        shortcut_params,
        main_state,
        shortcut_state,
    }))
}

/// Takes over a stack's parameters; the stack's own layout is the same, moved to the range's start.
fn adopt<T: Element>(plan: &mut Plan, stack: &Stack<T>) -> Range<usize> {
    let mut initials = stack.plans().flat_map(|(_, _, _, inner)| inner.parameters.iter().map(|p| p.initial));
    let mut whole: Option<Range<usize>> = None;
    for slot in stack.layout().slots() {
        let initial = initials.next().unwrap_or(Initial::Constant(0.0));
        let range = plan.parameter(&slot.key(), &slot.shape, slot.storage, initial);
        whole = Some(whole.map_or(range.clone(), |whole| whole.start..range.end));
    }
    extend_to(whole, stack.layout())
}

fn adopt_state<T: Element>(plan: &mut Plan, stack: &Stack<T>) -> Range<usize> {
    let states: Vec<_> = stack.plans().flat_map(|(_, _, _, inner)| inner.states.clone()).collect();
    let mut whole: Option<Range<usize>> = None;
    for (slot, state) in stack.state_layout().slots().iter().zip(states) {
        let range = plan.state(&slot.key(), slot.len(), state.initial, state.momentum);
        whole = Some(whole.map_or(range.clone(), |whole| whole.start..range.end));
    }
    extend_to(whole, stack.state_layout())
}

/// The range in the outer slice; empty where the stack has no slot.
fn extend_to(whole: Option<Range<usize>>, layout: &Layout) -> Range<usize> {
    debug_assert!(whole.is_some() || layout.is_empty());
    whole.unwrap_or(0..0)
}

fn add<T: Element>(from: &[T], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += *from;
    }
}

impl<T: Element> Layer<T> for Residual<T> {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn prepare(&mut self, params: &[T], _packed: &mut [T]) {
        self.main.prepare(&params[self.main_params.clone()]);
        self.shortcut.prepare(&params[self.shortcut_params.clone()]);
    }

    /// The phases of the layers, then those of the shortcut, of which the first is in the layers' last.
    fn forward(&mut self, io: Forward<'_, T>) {
        let stops = self.main.stops();
        let paths = [
            (&mut self.main, &self.main_params, &self.main_state, Some(io.phase)),
            (&mut self.shortcut, &self.shortcut_params, &self.shortcut_state, io.phase.checked_sub(stops)),
        ];
        if io.phase == 0 {
            io.y.fill(T::ZERO);
        }
        for (stack, params, state, phase) in paths {
            let Some(phase) = phase.filter(|phase| *phase <= stack.stops()) else { continue };
            if phase == 0 {
                stack.x(io.m).copy_from_slice(io.x);
            }
            let micro = Pass { m: io.m, mode: io.mode, params: &io.params[params.clone()] };
            let (state, statistics) = (&io.state[state.clone()], &mut io.statistics[state.clone()]);
            stack.forward_phase(phase, micro, state, statistics, io.sums);
            if phase == stack.stops() {
                add(stack.y(io.m), io.y);
            }
        }
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        let stops = self.main.stops();
        let paths = [
            (&mut self.main, &self.main_params, Some(io.phase)),
            (&mut self.shortcut, &self.shortcut_params, io.phase.checked_sub(stops)),
        ];
        let mut dx = io.dx;
        if let (Some(dx), 0) = (&mut dx, io.phase) {
            dx.fill(T::ZERO);
        }
        for (stack, params, phase) in paths {
            let Some(phase) = phase.filter(|phase| *phase <= stack.stops()) else { continue };
            if phase == 0 {
                stack.y_and_dy(io.m).1.copy_from_slice(io.dy);
            }
            let micro = Pass { m: io.m, mode: io.mode, params: &io.params[params.clone()] };
            let dparams = &mut io.dparams[params.clone()];
            stack.backward_phase(phase, micro, dparams, Onto::Add, dx.is_some(), io.sums);
            if let (Some(dx), true) = (&mut dx, phase == stack.stops()) {
                add(stack.dx(io.m), dx);
            }
        }
    }
}
