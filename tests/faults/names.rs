//! Each promise of SECURITY.md names the tests that check it, and each of these tests must exist and run.

use std::collections::HashSet;
use std::path::Path;

/// Collects the names of the tests in a folder, without ignored ones.
fn tests(folder: &Path, names: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(tests_of(&std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The names of the functions below a test attribute. Functions in `proptest!` have one as well.
fn tests_of(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(declared) = line.trim_start_matches("async ").strip_prefix("fn ") {
            let name = declared.split('(').next().unwrap();
            names.extend(is_test.then(|| name.to_owned()));
            is_test = false;
        } else {
            // Other attributes and comments may stand between the two.
            is_test &= (line.starts_with("#[") && !line.starts_with("#[ignore")) || line.starts_with("//");
        }
    }
    names
}

/// The rows of all tables of a text, each with the header of its table.
fn rows(text: &str) -> Vec<(&str, &str)> {
    let mut header = None;
    let mut rows = Vec::new();
    for line in text.lines() {
        if !line.starts_with('|') {
            header = None;
        } else if !line.starts_with("|-") {
            let header = *header.get_or_insert(line);
            rows.extend((header != line).then_some((header, line)));
        }
    }
    rows
}

#[test]
fn every_promise_of_the_security_policy_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = HashSet::new();
    ["src", "tests"].iter().for_each(|folder| tests(&root.join(folder), &mut names));
    let policy = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let rows = rows(&policy);
    assert!(rows.len() > 20, "the tables could not be read: {rows:#?}");
    for (header, row) in rows {
        assert!(header.ends_with("| held by |"), "a table that does not say what holds its promises: {header}");
        let held_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in held_by.split(", ") {
            let test = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
            assert!(test.is_some_and(|test| names.contains(test)), "{name} is no test that runs: {row}");
        }
    }
}

#[test]
fn a_test_is_a_function_with_an_attribute_that_makes_it_one() {
    let source = "
        #[test]
        /// Says why.
        #[allow(clippy::unwrap_used)]
        fn plain() {}
        fn helper() {}
        #[tokio::test(start_paused = true)]
        async fn of_tokio() {}
        // #[test]
        fn switched_off() {}
        #[test]
        #[ignore = \"takes hours\"]
        fn ignored() {}
        #[test_case(1)]
        fn other(_: u8) {}
    ";
    assert_eq!(tests_of(source), ["plain", "of_tokio"]);
}
