//! Words for an error: the name that was probably meant, and lists of names.

/// Without the feature `config`, no guess is made.
#[cfg(not(feature = "config"))]
pub(super) fn nearest<'a>(_given: &str, _known: &[&'a str]) -> Option<&'a str> {
    None
}

/// The known name that `given` was probably meant to be.
#[cfg(feature = "config")]
pub(super) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    // A third of the letters may be wrong; swapped neighbours count once.
    let most = given.chars().count().div_ceil(3);
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), *name))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Names for a sentence: `` `a`, `b` and `c` ``.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}
