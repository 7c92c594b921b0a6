//! SECURITY.md names the tests that hold its promises; they must exist.

use std::collections::HashSet;
use std::path::Path;

/// The names of the functions in a folder's sources.
fn functions(folder: &Path, names: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let rests = text.split("fn ").skip(1).filter_map(|rest| rest.split_once('('));
            names.extend(rests.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn every_test_that_the_security_policy_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = HashSet::new();
    ["src", "tests", "examples"].iter().for_each(|folder| functions(&root.join(folder), &mut names));
    let policy = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (_, threats) = policy.split_once("\n## Threats").unwrap();
    let rows = threats.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
    let mut promised = 0;
    for row in rows {
        let held_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for test in held_by.split(", ").map(|name| name.trim_matches('`')) {
            assert!(names.contains(test), "there is no test `{test}`: {row}");
            promised += 1;
        }
    }
    assert!(promised > 20, "the table could not be read");
}
