//! Modules import downward only: between the floors that ARCHITECTURE.md lists, and inside a folder without a circle.
//!
//! Read from the source text: every path that begins with `crate::` or `super::`, in a `use` or elsewhere, outside of
//! comments and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose files are compiled for tests only.
const FOR_TESTS: [&str; 2] = ["checked", "virtual_time"];

/// A source file, as a module.
struct Source {
    path: PathBuf,
    /// `["pool", "task"]`; a `mod.rs` has the path of its folder.
    module: Vec<String>,
    imports: Vec<Import>,
}

/// A path from the root of the crate, as `["pool", "task", "Task"]`.
struct Import {
    line: usize,
    path: Vec<String>,
}

/// One import that is not allowed.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Offence(String, usize, String);

#[test]
fn modules_import_from_lower_floors_only() {
    let floors = floors(&read("ARCHITECTURE.md"));
    let mut offences = Vec::new();
    for source in sources() {
        let own = floors.get(&source.module[0]);
        assert!(own.is_some(), "ARCHITECTURE.md has no floor for {}", source.path.display());
        for import in source.imports.iter().filter(|import| import.path[0] != source.module[0]) {
            // The re-exports of the root of the crate are above all floors.
            if floors.get(&import.path[0]).is_none_or(|floor| Some(floor) >= own) {
                offences.push(source.offence(import, "is not on a lower floor"));
            }
        }
    }
    report(&offences);
}

#[test]
fn no_files_of_one_folder_import_each_other_in_a_circle() {
    let sources = sources();
    let edges = siblings(&sources);
    let mut offences = Vec::new();
    for (from, to, source, import) in &edges {
        if reaches(&edges, to, from) {
            offences.push(source.offence(import, "is part of a circle"));
        }
    }
    report(&offences);
}

#[test]
fn a_file_of_the_pool_imports_from_files_above_it_in_the_table() {
    let files = table(&read("src/pool/mod.rs"));
    let place = |file: &str| files.iter().position(|name| name == file);
    let sources = sources();
    let mut offences = Vec::new();
    for source in sources.iter().filter(|source| source.is_file_of("pool")) {
        let own = place(&source.module[1]);
        assert!(own.is_some(), "the table of src/pool/mod.rs has no {}", source.path.display());
        for import in source.imports.iter().filter(|import| import.path[0] == "pool") {
            let name = import.path.get(1).map_or("", String::as_str);
            let inside = name == source.module[1];
            if !inside && place(name).is_none_or(|other| Some(other) > own) {
                offences.push(source.offence(import, "is not above it"));
            }
        }
    }
    report(&offences);
}

#[test]
fn imports_are_found_wherever_they_are() {
    let module = ["pool", "task"].map(String::from);
    let text = "use std::fmt;\nuse super::{\n    local, worker::{self, run},\n};\n// use crate::no::comment;\n\
        fn f() { let x = crate::error::Reason::Shed; super::super::terms::g(x) }\n\
        use crate::{a, b::c};\n#[cfg(test)]\nmod tests {\n    use crate::no::test;\n}\n";
    let found: Vec<_> =
        imports(&module, text).into_iter().map(|import| (import.line, import.path.join("::"))).collect();
    let expected = [
        (2, "pool::local"),
        (2, "pool::worker::self"),
        (2, "pool::worker::run"),
        (6, "error::Reason::Shed"),
        (6, "terms::g"),
        (7, "a"),
        (7, "b::c"),
    ];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}

// === what is there ===

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files of the crate but `lib.rs` and the tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it is a folder") {
            let path = entry.expect("it can be read").path();
            let stem = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            if path.is_dir() {
                folders.extend((!FOR_TESTS.contains(&stem.as_str())).then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "rs") && stem != "tests" && stem != "lib" {
                sources.push(Source::new(&root, path, &stem));
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

impl Source {
    fn new(root: &Path, path: PathBuf, stem: &str) -> Self {
        let inside = path.strip_prefix(root).expect("it is inside").parent().expect("it is a file");
        let mut module: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        module.extend((stem != "mod").then(|| stem.to_owned()));
        let text = fs::read_to_string(&path).expect("it can be read");
        let imports = imports(&module, &text);
        Self { path, module, imports }
    }

    /// Whether it is a file right inside of a folder of this name, and not the folder's `mod.rs`.
    fn is_file_of(&self, folder: &str) -> bool {
        self.module.len() == 2 && self.module[0] == folder && !self.path.ends_with("mod.rs")
    }

    fn offence(&self, import: &Import, why: &str) -> Offence {
        let path = self.path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&self.path);
        Offence(path.display().to_string(), import.line, format!("{} {why}", import.path.join("::")))
    }
}

/// The floor of each module: lines such as `2  config/  timer.rs    what they are`.
fn floors(text: &str) -> BTreeMap<String, usize> {
    let (_, section) = text.split_once("## Floors").expect("there is such a section");
    let block = section.split("```").nth(1).expect("the floors are a block");
    let mut floors = BTreeMap::new();
    for line in block.lines() {
        let mut words = line.split_whitespace();
        let Some(floor) = words.next().and_then(|word| word.parse().ok()) else { continue };
        let names = words.map_while(|word| word.strip_suffix('/').or_else(|| word.strip_suffix(".rs")));
        floors.extend(names.map(|name| (name.to_owned(), floor)));
    }
    floors
}

/// The names in the first column of a table of files, in their order.
fn table(text: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("// | "));
    let columns = rows.filter_map(|row| row.split('|').next());
    columns.flat_map(|column| column.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

// === what is imported ===

/// The paths that begin with `crate::` or `super::`.
fn imports(module: &[String], text: &str) -> Vec<Import> {
    let code = code(text);
    let mut imports = Vec::new();
    let mut at = 0;
    while let Some(found) = ["crate::", "super::"].iter().filter_map(|word| code[at..].find(word)).min() {
        let start = at + found;
        let line = code[..start].matches('\n').count() + 1;
        let mut rest = &code[start..];
        let mut base = if rest.starts_with("crate::") { Vec::new() } else { module.to_vec() };
        rest = rest.strip_prefix("crate::").unwrap_or(rest);
        while let Some(after) = rest.strip_prefix("super::") {
            base.pop();
            rest = after;
        }
        let mut paths = Vec::new();
        rest = tree(rest, &base, &mut paths);
        imports.extend(paths.into_iter().filter(|path| !path.is_empty()).map(|path| Import { line, path }));
        at = (code.len() - rest.len()).max(start + 1);
    }
    imports
}

/// Reads a tree of paths, `a::{b, c::d}`, below `base`; what follows it.
fn tree<'a>(text: &'a str, base: &[String], paths: &mut Vec<Vec<String>>) -> &'a str {
    let mut text = text.trim_start();
    if let Some(inside) = text.strip_prefix('{') {
        text = inside;
        loop {
            text = text.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            if let Some(after) = text.strip_prefix('}') {
                return after;
            }
            let after = tree(text, base, paths);
            if after.len() == text.len() {
                return after;
            }
            text = after;
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(text.len());
    let mut path = base.to_vec();
    path.push(text[..end].to_owned());
    text = &text[end..];
    match text.strip_prefix("::") {
        // A turbofish ends the path.
        Some(after) if !after.starts_with('<') => tree(after, &path, paths),
        _ => {
            paths.push(path);
            let renamed = text
                .strip_prefix(" as ")
                .map(|after| after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'));
            renamed.unwrap_or(text)
        }
    }
}

/// The text without its tests, and with comments blanked.
fn code(text: &str) -> String {
    let tests =
        ["#[cfg(test)]\nmod ", "#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]\nmod tests"];
    let end = tests.iter().filter_map(|start| text.find(start)).min().unwrap_or(text.len());
    let blank = |line: &'_ str| if line.trim_start().starts_with("//") { String::new() } else { line.to_owned() };
    text[..end].lines().map(blank).collect::<Vec<_>>().join("\n")
}

// === circles ===

type Edge<'a> = (Vec<String>, Vec<String>, &'a Source, &'a Import);

/// The imports between two files of one folder.
fn siblings(sources: &[Source]) -> Vec<Edge<'_>> {
    let files: BTreeSet<_> =
        sources.iter().filter(|source| !source.path.ends_with("mod.rs")).map(|source| &source.module).collect();
    let mut edges = Vec::new();
    for source in sources.iter().filter(|source| files.contains(&source.module)) {
        let depth = source.module.len();
        for import in &source.imports {
            let Some(other) = import.path.get(..depth).map(<[String]>::to_vec) else { continue };
            if other != source.module && other[..depth - 1] == source.module[..depth - 1] && files.contains(&other) {
                edges.push((source.module.clone(), other, source, import));
            }
        }
    }
    edges
}

fn reaches(edges: &[Edge<'_>], from: &[String], to: &[String]) -> bool {
    let mut seen = BTreeSet::from([from.to_vec()]);
    let mut left = vec![from.to_vec()];
    while let Some(module) = left.pop() {
        if module == to {
            return true;
        }
        let next = edges.iter().filter(|edge| edge.0 == module).map(|edge| edge.1.clone());
        left.extend(next.filter(|other| seen.insert(other.clone())));
    }
    false
}

fn report(offences: &[Offence]) {
    let lines: Vec<_> = offences.iter().map(ToString::to_string).collect();
    assert!(offences.is_empty(), "\n{}", lines.join("\n"));
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(file, line, what) = self;
        write!(f, "{file}:{line}: {what}")
    }
}
