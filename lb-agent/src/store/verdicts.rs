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
    let table = |Failing { target, action }: &Failing| {
        let check = file::quote(&action.to_string());
        format!("\n[[failing]]\ntarget = \"{target}\"\ncheck = {check}\n")
    };
    let tables: String = failing.iter().map(table).collect();
    format!("# Written by lb-agent, which overwrites it.\n{tables}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        let failing = [("10.0.1.11:80", "tcp"), ("[fd00::1]:443", r#"http,path=/x\,y,body="a\\b""#)].map(
            |(target, check)| Failing { target: target.parse().unwrap(), action: check.parse().unwrap() },
        );
        let failing = BTreeSet::from(failing);
        let of_before = "[[failing]]\ntarget = \"10.0.1.11:80\"\ntype = \"tcp\"\n";
        assert_eq!(parse(of_before, "f").unwrap().first(), failing.first());
        assert_eq!(parse(&print(&failing), "f"), Ok(failing));
        assert_eq!(parse(&print(&BTreeSet::new()), "f"), Ok(BTreeSet::new()));
    }
}
