//! What of another configuration can be had while the agent runs. Pure.

use super::{Config, Limits};

/// What a changed configuration means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// Keys whose new value holds from now on.
    pub now: Vec<&'static str>,
    /// Keys whose new value holds from the next start on.
    pub at_restart: Vec<&'static str>,
}

impl Config {
    /// What changes from this configuration to `new`.
    ///
    /// # Errors
    /// Where the running data plane cannot follow at all: with what to do.
    pub fn reload(&self, new: &Self) -> Result<Reload, String> {
        if let Some((limit, old, new)) = self.limits.difference(&new.limits) {
            return Err(format!(
                "limits.{limit} = {new}: the running data plane was made for {old}: stop the agent, run `lb-agent detach`, which interrupts traffic, and start it again"
            ));
        }
        let keys = |config: &Self| {
            config
                .http
                .as_ref()
                .map(|http| (http.token_file.clone(), http.cert_file.clone(), http.key_file.clone()))
        };
        let listen = |config: &Self| config.http.as_ref().map(|http| http.listen);
        let at_restart = [
            ("interfaces", self.interfaces != new.interfaces),
            ("xdp_mode", self.xdp_mode != new.xdp_mode),
            ("state_dir", self.state_dir != new.state_dir),
            ("revisions", self.revisions != new.revisions),
            ("socket", self.socket != new.socket),
            ("pin_dir", self.pin_dir != new.pin_dir),
            ("manage_vips", self.manage_vips != new.manage_vips),
            ("diagnostics", self.diagnostics != new.diagnostics),
            ("http.listen", listen(self) != listen(new)),
        ];
        let now = [("http.token_file, http.cert_file, http.key_file", keys(self) != keys(new))];
        let changed = |keys: &[(&'static str, bool)]| {
            keys.iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| *key).collect()
        };
        Ok(Reload { now: changed(&now), at_restart: changed(&at_restart) })
    }
}

impl Limits {
    /// The first that differs: its key, what it is here and what there.
    fn difference(&self, other: &Self) -> Option<(&'static str, u32, u32)> {
        let all = [
            ("flows", self.flows, other.flows),
            ("flows6", self.flows6(), other.flows6()),
            ("services", self.services, other.services),
            ("backends", self.backends, other.backends),
            ("table_size", self.table_size, other.table_size),
        ];
        all.into_iter().find(|(_, here, there)| here != there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "config.toml").unwrap()
    }

    #[test]
    fn what_changes_is_told_by_when_it_holds() {
        let old = config("[http]\nlisten = \"127.0.0.1:1\"\n");
        let new = config(
            "interfaces = [\"eth1\"]\nmanage_vips = false\n[http]\nlisten = \"127.0.0.1:1\"\ntoken_file = \"/t\"\n",
        );
        let expected = Reload {
            now: vec!["http.token_file, http.cert_file, http.key_file"],
            at_restart: vec!["interfaces", "manage_vips"],
        };
        assert_eq!(old.reload(&new), Ok(expected));
        assert_eq!(old.reload(&old), Ok(Reload::default()));
        assert_eq!(old.reload(&config("")).unwrap().at_restart, ["http.listen"]);
    }

    #[test]
    fn other_limits_are_refused_with_the_way_there() {
        for key in ["flows = 2048", "flows6 = 2048", "services = 7", "backends = 9", "table_size = 251"] {
            let refused = config("").reload(&config(&format!("[limits]\n{key}\n"))).unwrap_err();
            assert!(
                refused.starts_with(&format!("limits.{key}: the running data plane was made for ")),
                "{refused}"
            );
            assert!(refused.contains("`lb-agent detach`"), "{refused}");
        }
    }
}
