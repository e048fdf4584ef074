//! What `~/.aws/credentials` and `~/.aws/config` say of a profile.

use std::collections::HashMap;
use std::env;
use std::path::PathBuf;

/// A profile's keys.
#[derive(Default)]
pub(super) struct Profile(HashMap<String, String>);

impl Profile {
    /// That of `AWS_PROFILE`, else `default`; empty where there is none.
    pub fn load() -> Self {
        let name = env::var("AWS_PROFILE").unwrap_or_else(|_| "default".into());
        let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let mut profile = Self::default();
        let files = [
            ("AWS_CONFIG_FILE", "config", format!("profile {name}")),
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name.clone()),
        ];
        for (variable, file, section) in files {
            let path = env::var_os(variable).map_or_else(|| home.join(".aws").join(file), PathBuf::from);
            let text = std::fs::read_to_string(path).unwrap_or_default();
            profile.read(&text, &[&section, &name]);
        }
        profile
    }

    /// A key's value.
    pub fn get(&self, key: &str) -> Option<String> {
        self.0.get(key).cloned()
    }

    fn read(&mut self, text: &str, sections: &[&str]) {
        let mut wanted = false;
        for line in text.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                wanted = sections.contains(&section.trim());
            } else if let (true, Some((key, value))) = (wanted && !line.starts_with(['#', ';']), line.split_once('=')) {
                self.0.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_its_section() {
        let mut profile = Profile::default();
        profile.read(
            "[default]\nregion = a\n[profile work]\n# region = b\nRegion=c\n\n[other]\nregion = d",
            &["profile work"],
        );
        profile.read("[work]\naws_access_key_id = id=1\nbroken", &["work"]);
        assert_eq!(profile.get("region").as_deref(), Some("c"));
        assert_eq!(profile.get("aws_access_key_id").as_deref(), Some("id=1"));
        assert_eq!(profile.get("none"), None);
    }
}
