//! Whether the process may do what the data plane needs.

use anyhow::{Context as _, ensure};
use rustix::thread::{CapabilitySet, capabilities};

/// Capabilities that loading and attaching needs (capabilities(7)); before Linux 5.8 `CAP_SYS_ADMIN` stood for the
/// first two, and it still does.
const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
];

/// Refuses early, and with a better reason than "operation not permitted".
pub(super) fn require(verb: &str) -> anyhow::Result<()> {
    let effective = capabilities(None).context("cannot read this process's capabilities")?.effective;
    let missing = missing(effective);
    let list = missing.join(", ");
    ensure!(missing.is_empty(), "`lb-agent {verb}` needs root, or {list}: run it with sudo");
    Ok(())
}

fn missing(effective: CapabilitySet) -> Vec<&'static str> {
    let is_admin = effective.contains(CapabilitySet::SYS_ADMIN);
    let implied = |needed| is_admin && needed != CapabilitySet::NET_ADMIN;
    let lacks = |needed| !effective.contains(needed) && !implied(needed);
    NEEDED.iter().filter(|(needed, _)| lacks(*needed)).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(missing(CapabilitySet::empty()), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(missing(CapabilitySet::SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(CapabilitySet::all()), Vec::<&str>::new());
    }
}
