//! The configuration once more: after SIGHUP, or when its file has changed.

use tracing::{error, info, warn};

use super::changed::Changed;
use crate::api::Keys;
use crate::config::{Config, Reload};
use crate::events::{Events, Happening};

/// Reads the configuration once more, as at the start.
pub(super) type Again<'a> = dyn Fn() -> anyhow::Result<Config> + 'a;

/// Takes over what can be taken over while the agent runs.
pub(super) struct Reloader<'a> {
    /// The configuration that holds.
    pub(super) config: Config,
    /// Reads the next.
    pub(super) again: &'a Again<'a>,
    /// The file that it stands in, and those that it names.
    pub(super) changed: Changed,
    /// What is exchanged.
    pub(super) keys: Keys,
    /// Where it is told.
    pub(super) events: Events,
}

impl Reloader<'_> {
    /// Reads the configuration. One that cannot be used changes nothing, and is told with the reason, once.
    pub(super) fn reload(&mut self) {
        // As the files are before they are read: what changes in between is read again.
        self.changed.note();
        match self.try_reload() {
            Ok(Reload { now, at_restart }) => {
                info!(now = now.join(", "), "configuration reloaded");
                if !at_restart.is_empty() {
                    let keys = at_restart.join(", ");
                    warn!(
                        keys,
                        "these hold from the next start on, which interrupts no traffic: restart the agent"
                    );
                }
                let owned = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
                let (now, at_restart) = (owned(now), owned(at_restart));
                self.events.tell(Happening::ConfigurationReloaded { now, at_restart });
            }
            Err(refusal) => {
                let error = format!("{refusal:#}");
                error!(error, "the configuration cannot be used; going on with the one before");
                self.events.tell(Happening::ConfigurationRefused { error });
            }
        }
    }

    fn try_reload(&mut self) -> anyhow::Result<Reload> {
        let new = (self.again)()?;
        let reload = self.config.reload(&new).map_err(anyhow::Error::msg)?;
        // Read again even where their names are the same: that is what a new certificate comes by.
        if let (Some(_), Some(http)) = (&self.config.http, &new.http) {
            self.changed.also([&http.token_file, &http.cert_file, &http.key_file].into_iter().flatten());
            self.keys.load(http)?;
            // What waits for a restart is still to be told the next time.
            self.config.http.iter_mut().for_each(|held| {
                held.token_file.clone_from(&http.token_file);
                held.cert_file.clone_from(&http.cert_file);
                held.key_file.clone_from(&http.key_file);
            });
        }
        Ok(reload)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use super::*;

    fn told(events: &Events) -> Vec<Happening> {
        let mut listener = events.listen(0);
        std::iter::from_fn(|| listener.backlog()).map(|event| event.what).collect()
    }

    #[test]
    fn an_invalid_configuration_keeps_the_one_before_and_says_why() {
        let directory = std::env::temp_dir().join(format!("lb-agent-reload-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("config.toml");
        let next = RefCell::new(String::new());
        let again = || {
            std::fs::write(&file, &*next.borrow())?;
            Ok(Config::load(Some(Path::new(&file)))?)
        };
        let events = Events::default();
        let mut reloader = Reloader {
            config: Config::default(),
            again: &again,
            changed: Changed::since_now(&file, &Config::default()),
            keys: Keys::default(),
            events: events.clone(),
        };
        for text in ["manage_vips = maybe\n", "[limits]\nflows = 4096\n", "manage_vips = false\n"] {
            next.replace(text.to_owned());
            reloader.reload();
            assert_eq!(reloader.config, Config::default());
        }
        let shown = file.display();
        std::fs::remove_dir_all(&directory).unwrap();
        let told = told(&events);
        let Happening::ConfigurationRefused { error } = &told[0] else { panic!("{told:?}") };
        assert!(error.starts_with(&format!("{shown} line 1, `manage_vips = maybe`: ")), "{error}");
        let Happening::ConfigurationRefused { error } = &told[1] else { panic!("{told:?}") };
        assert!(error.contains("`lb-agent detach`"), "{error}");
        let at_restart = vec!["manage_vips".to_owned()];
        assert_eq!(told[2], Happening::ConfigurationReloaded { now: Vec::new(), at_restart });
    }
}
