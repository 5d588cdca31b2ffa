//! The file that tells the next agent which checks failed last, so that it does not give a dead backend traffic until
//! it has found out for itself. A hint: what cannot be read is left out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::health::Failing;
use crate::model::file;

/// The file as it stands.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    failing: BTreeSet<Failing>,
}

/// Reads the file. `origin` names it in errors.
pub(super) fn parse(text: &str, origin: &str) -> Result<BTreeSet<Failing>, file::FileError> {
    file::read_toml(text, origin).map(|RawFile { failing }| failing)
}

/// What stands in the file.
pub(super) fn print(failing: &BTreeSet<Failing>) -> String {
    let table = |Failing { target, kind }: &Failing| {
        format!("\n[[failing]]\ntarget = \"{target}\"\ntype = \"{kind}\"\n")
    };
    let tables: String = failing.iter().map(table).collect();
    format!("# Written by lb-agent, which overwrites it.\n{tables}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        let failing = ["10.0.1.11:80", "[fd00::1]:443"]
            .map(|target| Failing { target: target.parse().unwrap(), kind: crate::model::HealthType::Tcp });
        let failing = BTreeSet::from(failing);
        assert_eq!(parse(&print(&failing), "f"), Ok(failing));
        assert_eq!(parse(&print(&BTreeSet::new()), "f"), Ok(BTreeSet::new()));
    }
}
