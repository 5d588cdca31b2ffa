//! The file that holds one revision of the desired state.
//!
//! ```toml
//! checksum = "crc32:5f0c2c6d"     # of everything below
//! version = 2
//! revision = 17
//! time = "2026-11-23T18:00:00Z"
//! changes = [
//!     "add service web: ...",
//! ]
//!
//! [revisions]                     # for each service, the revision that changed it last
//! "web" = 17
//!
//! [[service]]                     # as `lb-agent export` prints it
//!
//! [[removing]]                    # backends on their way out
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::revision::{Revision, RevisionInfo};
use crate::model::file::{self, RawService, RawState};
use crate::model::{Desired, Endpoint, Removing, ServiceName, Timestamp, Weight};

/// Of the file, so that a later agent can read an earlier one's.
const VERSION: u32 = 2;
/// Without revisions and checksum.
const FIRST_VERSION: u32 = 1;

const HEAD: &str =
    "# Written by lb-agent, which overwrites it: change the state with `lb-agent apply`, not here.\n";

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    checksum: Option<String>,
    version: u32,
    revision: Option<u64>,
    time: Option<Timestamp>,
    #[serde(default)]
    changes: Vec<String>,
    #[serde(default)]
    revisions: BTreeMap<ServiceName, u64>,
    #[serde(default)]
    service: Vec<RawService>,
    #[serde(default)]
    removing: Vec<RawRemoving>,
}

/// The beginning of the file, up to the first table.
#[derive(Deserialize)]
struct RawHead {
    revision: u64,
    time: Timestamp,
    changes: Vec<String>,
}

/// A backend on its way out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRemoving {
    service: ServiceName,
    address: Endpoint,
    weight: Weight,
    #[serde(default)]
    backup: bool,
    /// Unix time.
    deadline_seconds: u64,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// It says so itself, and where.
    Found(String),
    /// It can be read, but is not what was written: the place is where it differs from a copy.
    Altered,
}

/// Reads the file. `origin` names it in errors.
pub(super) fn parse(text: &str, origin: &str) -> Result<Revision, Damage> {
    let raw: RawFile = file::read_toml(text, origin).map_err(|error| Damage::Found(error.to_string()))?;
    if ![FIRST_VERSION, VERSION].contains(&raw.version) {
        return Err(Damage::Found(format!(
            "{origin}: version {} is not known to this lb-agent, which writes {VERSION}",
            raw.version
        )));
    }
    let is_first = raw.version == FIRST_VERSION;
    if !is_first && raw.checksum != body(text).map(checksum) {
        return Err(Damage::Altered);
    }
    let revision = raw.revision.filter(|_| !is_first).unwrap_or_default();
    let info = RevisionInfo { revision, time: raw.time.unwrap_or_default(), changes: raw.changes };
    let desired =
        desired(raw.service, raw.removing).map_err(|reason| Damage::Found(format!("{origin}: {reason}")))?;
    let number = |name: &ServiceName| raw.revisions.get(name).copied().unwrap_or(revision);
    let services = desired.services.keys().map(|name| (name.clone(), number(name))).collect();
    Ok(Revision { info, desired: Arc::new(desired), services })
}

/// Reads only what is told of a revision; its state is not looked at.
pub(super) fn parse_info(text: &str, origin: &str) -> Result<RevisionInfo, String> {
    let head = text.find("\n[").map_or(text, |end| &text[..=end]);
    // All keys but three are of no interest here.
    let RawHead { revision, time, changes } =
        file::read_toml(head, origin).map_err(|error| error.to_string())?;
    Ok(RevisionInfo { revision, time, changes })
}

fn desired(services: Vec<RawService>, removing: Vec<RawRemoving>) -> Result<Desired, String> {
    let mut desired = RawState::from(services).desired().map_err(|refusal| refusal.to_string())?;
    for RawRemoving { service, address, weight, backup, deadline_seconds } in removing {
        let deadline = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(deadline_seconds));
        let deadline = deadline.ok_or_else(|| format!("no such time: {deadline_seconds}"))?;
        let owner = desired.service_mut(&service).map_err(|refusal| refusal.to_string())?;
        if owner.backends.contains_key(&address) {
            return Err(format!("backend {address} of service `{service}` is both kept and removed"));
        }
        owner.removing.insert(address, Removing { weight, backup, deadline });
    }
    Ok(desired)
}

/// What stands in the file.
pub(super) fn print(revision: &Revision) -> String {
    let RevisionInfo { revision: number, time, changes } = &revision.info;
    let mut body = format!("version = {VERSION}\nrevision = {number}\ntime = \"{time}\"\nchanges = [\n");
    for change in changes {
        // Writing to a string cannot fail. The line is ours, but may quote what somebody typed.
        let _ = writeln!(body, "    {},", toml::Value::from(change.replace(char::is_control, " ")));
    }
    body.push_str("]\n\n[revisions]\n");
    for (name, number) in &revision.services {
        let _ = writeln!(body, "\"{name}\" = {number}");
    }
    body.push('\n');
    body.push_str(&file::print(&revision.desired));
    body.extend(removing(&revision.desired));
    format!("{HEAD}checksum = \"{}\"\n{body}", checksum(&body))
}

fn removing(desired: &Desired) -> impl Iterator<Item = String> {
    desired.services.values().flat_map(|service| {
        service.removing.iter().map(|(address, Removing { weight, backup, deadline })| {
            let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let name = &service.name;
            let backup = if *backup { "backup = true\n" } else { "" };
            format!(
                "\n[[removing]]\nservice = \"{name}\"\naddress = \"{address}\"\nweight = {weight}\n{backup}deadline_seconds = {deadline}\n"
            )
        })
    })
}

/// What the checksum is of: all below the line that holds it.
fn body(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("checksum = ")?;
    rest.split_once('\n').map(|(_, body)| body)
}

/// Finds every single flipped bit and every burst of up to 32; nobody is to be kept from forging it.
fn checksum(body: &str) -> String {
    format!("crc32:{:08x}", crc32fast::hash(body.as_bytes()))
}

/// Where a text first differs from what it was written as: the line's number, what stands there and what stood there.
pub(super) fn first_difference<'a>(now: &'a str, then: &'a str) -> Option<(usize, &'a str, &'a str)> {
    let (mut now, mut then) = (now.lines(), then.lines());
    (1..)
        .map_while(|number| match (now.next(), then.next()) {
            (None, None) => None,
            (now, then) => Some((number, now.unwrap_or(""), then.unwrap_or(""))),
        })
        .find(|(_, now, then)| now != then)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::file::tests::any_state;
    use crate::store::Draft;

    fn text() -> String {
        let desired = file::parse("[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\n", "f").unwrap();
        let draft = Draft { desired: Arc::new(desired), time: Timestamp::default(), reason: None };
        print(&Revision::default().succeeded_by(17, draft))
    }

    #[test]
    fn another_version_is_refused() {
        assert_eq!(
            parse("version = 3\n", "f"),
            Err(Damage::Found("f: version 3 is not known to this lb-agent, which writes 2".to_owned()))
        );
    }

    #[test]
    fn the_first_versions_file_is_read_as_revision_0() {
        let text = "# Written\nversion = 1\n\n[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\n";
        let revision = parse(text, "f").unwrap();
        assert_eq!((revision.info.revision, revision.desired.services.len()), (0, 1));
        assert_eq!(revision.services.values().copied().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn what_is_told_of_a_revision_stands_before_its_state() {
        let info = parse_info(&text(), "f").unwrap();
        assert_eq!(info, parse(&text(), "f").unwrap().info);
        assert_eq!(info.revision, 17);
    }

    #[test]
    fn a_line_that_was_changed_is_found() {
        let (text, wrong) = (text(), text().replace("vip = \"10.0.0.100", "vip = \"10.0.0.101"));
        assert_eq!(parse(&wrong, "f"), Err(Damage::Altered));
        assert_eq!(
            first_difference(&wrong, &text),
            Some((15, "vip = \"10.0.0.101:80\"", "vip = \"10.0.0.100:80\""))
        );
        let cut = &text[..text.find("\n[service.health]").unwrap()];
        assert_eq!(parse(cut, "f"), Err(Damage::Altered));
        assert_eq!(
            first_difference(cut, &text).map(|(_, now, then)| (now, then)),
            Some(("", "[service.health]"))
        );
        assert_eq!(first_difference(&text, &text), None);
    }

    proptest! {
        #[test]
        fn every_state_survives(mut desired in any_state(), deadline in 0..u64::from(u32::MAX), number in 1..u64::from(u32::MAX)) {
            let deadline = SystemTime::UNIX_EPOCH + Duration::from_secs(deadline);
            for service in desired.services.values_mut() {
                let leaving = service.backends.pop_first();
                service.removing.extend(leaving.map(|(at, b)| (at, Removing::new(b, deadline))));
            }
            let revision = Revision::default().succeeded_by(number, Draft::new(desired).because("\"a\\\n\u{1b}".to_owned()));
            let read = parse(&print(&revision), "f").unwrap();
            prop_assert_eq!(&read.info.changes[1..], &revision.info.changes[1..]);
            prop_assert_eq!(&read.info.changes[0], "\"a\\  ");
            prop_assert_eq!((read.desired, read.services), (revision.desired, revision.services));
        }

        #[test]
        fn no_single_changed_character_goes_unseen(at in 0..4096_usize, with in "[ -~]") {
            let mut bytes = text().into_bytes();
            let at = HEAD.len() + at % (bytes.len() - HEAD.len());
            prop_assume!(bytes[at] != with.as_bytes()[0]);
            bytes[at] = with.as_bytes()[0];
            let changed = String::from_utf8(bytes).unwrap();
            // The word `version` itself may be turned into another key: then that is what is wrong.
            prop_assert!(parse(&changed, "f").is_err(), "{}", changed);
        }
    }
}
