//! The file that holds the desired state.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::model::file::{self, RawService, RawState};
use crate::model::{Desired, Endpoint, Removing, ServiceName, Weight};

/// Of the file, so that a later agent can read an earlier one's.
const VERSION: u32 = 1;

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    version: u32,
    #[serde(default)]
    service: Vec<RawService>,
    #[serde(default)]
    removing: Vec<RawRemoving>,
}

/// A backend on its way out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRemoving {
    service: ServiceName,
    address: Endpoint,
    weight: Weight,
    /// Unix time.
    deadline_seconds: u64,
}

/// Reads the file. `origin` names it in errors.
pub(super) fn parse(text: &str, origin: &str) -> Result<Desired, String> {
    let raw: RawFile = file::read_toml(text, origin).map_err(|error| error.to_string())?;
    if raw.version != VERSION {
        return Err(format!(
            "{origin}: version {} is not known to this lb-agent, which writes {VERSION}",
            raw.version
        ));
    }
    let mut desired =
        RawState::from(raw.service).desired().map_err(|refusal| format!("{origin}: {refusal}"))?;
    for RawRemoving { service, address, weight, deadline_seconds } in raw.removing {
        let deadline = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(deadline_seconds));
        let deadline = deadline.ok_or_else(|| format!("{origin}: no such time: {deadline_seconds}"))?;
        let owner = desired.service_mut(&service).map_err(|refusal| format!("{origin}: {refusal}"))?;
        if owner.backends.contains_key(&address) {
            return Err(format!(
                "{origin}: backend {address} of service `{service}` is both kept and removed"
            ));
        }
        owner.removing.insert(address, Removing { weight, deadline });
    }
    Ok(desired)
}

/// What stands in the file.
pub(super) fn print(desired: &Desired) -> String {
    let removing = desired.services.values().flat_map(|service| {
        service.removing.iter().map(|(address, Removing { weight, deadline })| {
            let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let name = &service.name;
            format!(
                "\n[[removing]]\nservice = \"{name}\"\naddress = \"{address}\"\nweight = {weight}\ndeadline_seconds = {deadline}\n"
            )
        })
    });
    let removing: String = removing.collect();
    format!(
        "# Written by lb-agent, which overwrites it.\nversion = {VERSION}\n\n{}{removing}",
        file::print(desired)
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::file::tests::any_state;

    #[test]
    fn another_version_is_refused() {
        assert_eq!(
            parse("version = 2\n", "f").unwrap_err(),
            "f: version 2 is not known to this lb-agent, which writes 1"
        );
    }

    proptest! {
        #[test]
        fn every_state_survives(mut desired in any_state(), deadline in 0..u64::from(u32::MAX)) {
            let deadline = SystemTime::UNIX_EPOCH + Duration::from_secs(deadline);
            for service in desired.services.values_mut() {
                let leaving = service.backends.pop_first();
                service.removing.extend(leaving.map(|(at, b)| (at, Removing { weight: b.weight, deadline })));
            }
            prop_assert_eq!(parse(&print(&desired), "f").unwrap(), desired);
        }
    }
}
