//! Checks the public docs: terms, links, example settings, and that every key, metric and reason is documented.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tower_offload::Config;

/// Words for which the project has others: *task*, and of a worker *active*.
const WORDS: [&str; 3] = ["job", "jobs", "busy"];

/// Prometheus' own names, which have no others.
const OF_PROMETHEUS: [&str; 2] = ["job_name", "job=\""];

/// A piece of text, with its file and first line.
struct Text {
    file: String,
    line: usize,
    text: String,
}

#[test]
fn the_public_docs_have_one_word_for_each_thing() {
    let pages = pages().into_iter().flat_map(|page| prose(&page));
    let sources = sources().into_iter().flat_map(|source| documentation(&source));
    let texts: Vec<_> = pages.chain(sources).collect();
    assert!(texts.len() > 3000, "the docs were not found");
    report(texts.iter().flat_map(unwanted).collect());
}

#[test]
fn unwanted_words_are_found_in_comments_string_literals_and_identifiers() {
    let found = |text: &str| {
        let text = Text { file: "file".to_owned(), line: 7, text: text.to_owned() };
        unwanted(&text).len()
    };
    for text in ["a job", "Jobs wait", "`JobError`", "the busy worker", "workload_pool_jobs_total", "is_busy()"] {
        assert_eq!(found(text), 1, "{text}");
    }
    for text in ["business", "jobless", "- job_name: app", "up{job=\"app\"}", "tasks"] {
        assert_eq!(found(text), 0, "{text}");
    }
    let source = "//! one\nfn f() { g(\"two\\\" \", 'x', '\"', r#\"three \"\"#); } // four\n/// five\nfn g<'a>() {}\n\
        #[cfg(test)]\nmod tests { const T: &str = \"six\"; }\n";
    let texts: Vec<_> = rust("file", source).into_iter().map(|text| (text.line, text.text)).collect();
    let expected = [(1, "one"), (2, "two\\\" "), (2, "three \""), (3, "five")];
    assert_eq!(texts, expected.map(|(line, text)| (line, text.to_owned())));
}

#[test]
fn every_relative_link_leads_to_a_file() {
    if !root().join("benches").exists() {
        // The published package does not contain all of them.
        return;
    }
    let mut broken = Vec::new();
    for page in pages().iter().filter(|page| page.file.ends_with(".md")) {
        for text in lines(page) {
            let inline = text.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let defined = text.text.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, link)| link);
            for link in inline.chain(defined).filter(|link| !link.contains("://") && !link.starts_with('#')) {
                let target = root().join(&page.file).with_file_name(link.split('#').next().unwrap_or(link));
                if !target.exists() {
                    broken.push(text.offence(link));
                }
            }
        }
    }
    report(broken);
}

#[test]
fn the_settings_that_the_docs_show_are_read() {
    let mut count = 0;
    for block in pages().iter().flat_map(|page| blocks(page, "yaml")) {
        let section = block.text.split(':').next().unwrap_or_default();
        if ["general", "performance", "server", "app"].contains(&section) {
            let read = Config::from_yaml(&block.text);
            assert!(read.is_ok(), "{}:{}: {}", block.file, block.line, read.unwrap_err());
            count += 1;
        }
    }
    assert!(count >= 4, "the settings were not found");
}

#[test]
fn every_key_of_the_settings_is_documented_and_no_other() {
    let hints = read("src/config/yaml/hints.rs").text;
    let (lists, _) = hints.split_once("/// The keys of every section").expect("the lists of keys come first");
    let known: BTreeSet<_> = quoted(lists, '"').collect();
    assert!(known.contains("queue_target") && known.contains("port"), "{known:?}");
    let page = read("docs/configuration.md");
    let headings = page.text.lines().filter(|line| line.starts_with("## `")).flat_map(|line| quoted(line, '`'));
    let documented: BTreeSet<_> =
        first_column(&page.text).chain(headings.flat_map(|heading| heading.split('.'))).collect();
    let documented: BTreeSet<_> = documented.into_iter().filter(|key| !key.starts_with("NAME")).collect();
    assert_eq!(documented, known);
}

#[test]
fn every_metric_and_every_result_is_documented_and_no_other() {
    let names = read("src/metrics/names.rs").text;
    let (names, _) = names.split_once("/// The histograms of a pool").expect("the names come first");
    let page = read("docs/metrics.md").text;
    let (metrics, rest) = page.split_once("| `result` |").expect("there is a table of results");
    let (results, _) = rest.split_once("\n\n").expect("the table ends");
    let documented: BTreeSet<_> = first_column(metrics).collect();
    assert_eq!(documented, quoted(names, '"').collect());
    let pools = tower_offload::Pools::default();
    let counted: BTreeSet<_> = pools.stats()[0].counts.by_result().map(|(result, _)| result).collect();
    assert_eq!(first_column(results).collect::<BTreeSet<_>>(), counted);
}

#[test]
fn every_reason_is_documented_and_no_other() {
    let source = read("src/error/rejection.rs").text;
    let (_, rest) = source.split_once("fn as_str(self)").expect("reasons have words");
    let (words, _) = rest.split_once("const fn").expect("another function follows");
    let page = read("docs/overload.md").text;
    let (_, rest) = page.split_once("| reason |").expect("there is a table of reasons");
    let (table, _) = rest.split_once("\n\n").expect("the table ends");
    assert_eq!(first_column(table).collect::<BTreeSet<_>>(), quoted(words, '"').collect());
}

/// Such code needs generated code, so it is not a doctest.
#[test]
fn code_that_is_not_compiled_in_the_docs_is_an_excerpt_of_the_example_for_tonic() {
    let example = read("examples/tonic/main.rs").text;
    let example: BTreeSet<_> = example.lines().map(str::trim).collect();
    let mut count = 0;
    for block in pages().iter().flat_map(|page| blocks(page, "rust,ignore")) {
        for line in block.text.lines() {
            assert!(example.contains(line.trim()), "{}:{}: the example has no {line}", block.file, block.line);
        }
        count += 1;
    }
    assert!(count > 0, "the excerpts were not found");
}

// === what is there ===

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> Text {
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    Text { file: file.to_owned(), line: 1, text }
}

fn pages() -> Vec<Text> {
    let single = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "config.yaml"];
    let mut files: Vec<_> = single.map(str::to_owned).into();
    files.push("examples/server/README.md".to_owned());
    files.extend(below("docs").into_iter().filter(|file| file.ends_with(".md")));
    assert!(files.len() > 10, "the pages were not found");
    files.iter().map(|file| read(file)).collect()
}

/// The files of the crate that are not compiled for tests only.
fn sources() -> Vec<Text> {
    let for_tests = ["tests.rs", "/checked/", "/virtual_time/"];
    let files = below("src").into_iter().filter(|file| file.ends_with(".rs"));
    files.filter(|file| !for_tests.iter().any(|name| file.contains(name))).map(|file| read(&file)).collect()
}

/// The files below a folder, in order.
fn below(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("it is a folder") {
            let path = folder.join(entry.expect("it can be read").file_name());
            match root().join(&path).is_dir() {
                true => folders.push(path),
                false => files.push(path.to_string_lossy().into_owned()),
            }
        }
    }
    files.sort();
    files
}

// === texts ===

impl Text {
    fn offence(&self, what: &str) -> String {
        format!("{}:{}: {what}", self.file, self.line)
    }
}

fn lines(text: &Text) -> impl Iterator<Item = Text> {
    let numbered = text.text.lines().enumerate();
    numbered.map(|(index, line)| Text { file: text.file.clone(), line: text.line + index, text: line.to_owned() })
}

/// The lines of a page, without the tables of CHANGELOG.md that name what was renamed.
fn prose(page: &Text) -> Vec<Text> {
    let renamed = |line: &Text| page.file == "CHANGELOG.md" && line.text.trim_start().starts_with('|');
    lines(page).filter(|line| !renamed(line)).collect()
}

/// The code blocks of a page in this language.
fn blocks(page: &Text, language: &str) -> Vec<Text> {
    let mut blocks: Vec<Text> = Vec::new();
    let mut inside = None;
    for line in lines(page) {
        match (line.text.strip_prefix("```"), inside) {
            (Some(opens), None) => {
                inside = Some(opens == language);
                if opens == language {
                    blocks.push(Text { text: String::new(), line: line.line + 1, ..line });
                }
            }
            (Some(_), Some(_)) => inside = None,
            (None, Some(true)) => blocks.last_mut().expect("it was opened").text.push_str(&format!("{}\n", line.text)),
            (None, _) => {}
        }
    }
    blocks
}

/// The texts between pairs of `quote`.
fn quoted(text: &str, quote: char) -> impl Iterator<Item = &str> {
    text.split(quote).skip(1).step_by(2)
}

/// The code in the first column of a page's tables.
fn first_column(text: &str) -> impl Iterator<Item = &str> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once("` |")).map(|(code, _)| code)
}

/// The doc comments and the string literals of a source file.
fn documentation(source: &Text) -> Vec<Text> {
    rust(&source.file, &source.text)
}

fn rust(file: &str, text: &str) -> Vec<Text> {
    let end = text.find("#[cfg(test)]\nmod ").or_else(|| text.find("#[cfg(all(test")).unwrap_or(text.len());
    let mut texts = Vec::new();
    let mut rest = &text[..end];
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, kept) = match first {
            '/' if rest.starts_with("//") => {
                let comment = rest.lines().next().unwrap_or(rest);
                let doc = comment.strip_prefix("///").or_else(|| comment.strip_prefix("//!"));
                (comment.len(), doc.map(|doc| doc.strip_prefix(' ').unwrap_or(doc)))
            }
            '"' => {
                let inside = string(&rest[1..]);
                (inside.len() + 2, Some(inside))
            }
            'r' if rest.starts_with("r\"") || rest.starts_with("r#") => match raw_string(rest) {
                Some((length, inside)) => (length, Some(inside)),
                None => (1, None),
            },
            '\'' => (character(rest), None),
            other => (other.len_utf8(), None),
        };
        texts.extend(kept.map(|kept| Text { file: file.to_owned(), line, text: kept.to_owned() }));
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    texts
}

/// The content of a string literal: the text up to its closing quote.
fn string(text: &str) -> &str {
    let mut escaped = false;
    let end = text.find(|c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    &text[..end.expect("the string ends")]
}

/// The length of a raw string literal, and what is inside.
fn raw_string(text: &str) -> Option<(usize, &str)> {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    let inside = text[1 + hashes..].strip_prefix('"')?;
    let closes = format!("\"{}", "#".repeat(hashes));
    let end = inside.find(&closes)?;
    Some((1 + hashes + 1 + end + closes.len(), &inside[..end]))
}

/// The length of a character literal; of a lifetime, that of its quote.
fn character(text: &str) -> usize {
    let mut characters = text[1..].char_indices();
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => text[3..].find('\'').map_or(1, |at| at + 4),
        (Some(_), Some((at, '\''))) => at + 2,
        _ => 1,
    }
}

/// The words of a text for which the project has another term.
fn unwanted(text: &Text) -> Vec<String> {
    let plain = OF_PROMETHEUS.iter().fold(text.text.clone(), |text, name| text.replace(name, ""));
    let mut found = Vec::new();
    for (index, line) in plain.lines().enumerate() {
        let words = words(line);
        let unwanted = words.iter().filter(|word| WORDS.contains(&word.as_str()));
        found.extend(unwanted.map(|word| format!("{}:{}: `{word}`: {}", text.file, text.line + index, line.trim())));
    }
    found
}

/// The words of a line in lower case; `JobError` and `jobs_total` are two words each.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in line.chars() {
        if !c.is_alphabetic() || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c.is_alphabetic(), words.last_mut()) {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words
}

fn report(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}
