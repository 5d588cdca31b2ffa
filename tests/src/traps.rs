//! `docs/traps.md` names tests: each of them is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where tests are.
const CRATES: [&str; 4] = ["lb-common/src", "lb-ebpf/src", "lb-agent/src", "tests"];

/// Adds the name of every test of the sources below `directory`.
fn collect(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(tests_of(&fs::read_to_string(path).unwrap()));
        }
    }
}

/// Functions behind a line `#[test]` and, perhaps, more attributes.
fn tests_of(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            let name = line.strip_prefix("fn ").and_then(|rest| rest.split_once('('));
            names.extend(name.filter(|_| is_test).map(|(name, _)| name.to_owned()));
            is_test = false;
        }
    }
    names
}

/// What stands between backticks and is written as tests are.
fn named(page: &str) -> Vec<&str> {
    let words = page.split('`').skip(1).step_by(2);
    let is_name =
        |word: &&str| word.matches('_').count() > 2 && word.chars().all(|c| c.is_alphanumeric() || c == '_');
    words.filter(is_name).collect()
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/traps.md")).unwrap();
    let mut names = BTreeSet::new();
    CRATES.iter().for_each(|directory| collect(&root.join(directory), &mut names));
    let named = named(&page);
    let missing: Vec<_> = named.iter().filter(|&&name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "docs/traps.md names tests that there are not: {missing:#?}");

    let rows: Vec<_> =
        page.lines().filter(|line| line.starts_with("| ") && !line.contains("the trap")).collect();
    let without: Vec<_> = rows.iter().filter(|row| self::named(row).is_empty()).collect();
    assert!(rows.len() > 40 && without.is_empty(), "rows of docs/traps.md without a test: {without:#?}");
}

#[test]
fn tests_are_told_from_other_functions() {
    let source = "#[test]\nfn one() {}\nfn two() {}\n#[test]\n#[cfg(unix)]\n// why\nfn three(a in 0..1) {}\nlet x = 1;\nfn four() {}";
    assert_eq!(tests_of(source), ["one", "three"]);
}
