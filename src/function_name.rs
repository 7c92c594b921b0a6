//! The names of functions and types, as the log shows them.

use std::panic::Location;

/// The name of a task in the log: the name of the function or async function; for everything else, such as a closure or an
/// async block, the file and line of the call that submitted it.
///
/// An async block directly inside a function that is not async has the same type name as the future of an async function.
/// So it is called by the name of that function, except in `main`.
pub(crate) fn function_name<F>(is_future: bool, submitted_at: &Location<'_>) -> String {
    match named_function(std::any::type_name::<F>(), is_future) {
        Some(name) => name,
        None => format!("{}:{}", submitted_at.file(), submitted_at.line()),
    }
}

/// The name of a type without its path.
pub(crate) fn short_type_name<T>() -> String {
    let path = without_generics(std::any::type_name::<T>());
    path.rsplit("::").next().unwrap_or(&path).to_owned()
}

/// The name of the function whose type, or whose future's type, has this name.
fn named_function(type_name: &str, is_future: bool) -> Option<String> {
    let path = without_generics(type_name);
    // The future of `async fn resize` is `resize::{{closure}}`.
    let path = if is_future { path.strip_suffix("::{{closure}}")? } else { &path };
    let name = path.rsplit("::").next()?;
    let is_name = name.starts_with(|first: char| first == '_' || first.is_lowercase())
        && name.chars().all(|letter| letter == '_' || letter.is_alphanumeric());
    // A pointer such as `fn() -> core::ffi::c_int` ends like a path, too.
    let is_function = is_name && !path.contains(['(', ' ']) && name != "main";
    is_function.then(|| name.to_owned())
}

/// A path without what stands between `<` and `>`.
fn without_generics(path: &str) -> String {
    let (mut plain, mut depth, mut before) = (String::new(), 0_u32, ' ');
    for letter in path.chars() {
        match letter {
            '<' => depth += 1,
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
        before = letter;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::named_function;

    #[test]
    fn functions_have_names() {
        let named = |type_name| named_function(type_name, false);
        assert_eq!(named("app::tasks::process_data").as_deref(), Some("process_data"));
        assert_eq!(named("app::process<alloc::vec::Vec<fn() -> u8>>").as_deref(), Some("process"));
        assert_eq!(named("<app::Picture as app::Shape>::area").as_deref(), Some("area"));
    }

    #[test]
    fn futures_of_async_functions_have_names() {
        let named = |type_name| named_function(type_name, true);
        assert_eq!(named("app::resize::{{closure}}").as_deref(), Some("resize"));
        assert_eq!(named("app::Store<u8>::load<alloc::string::String>::{{closure}}").as_deref(), Some("load"));
    }

    #[test]
    fn nothing_else_has_a_name() {
        let others = [
            ("app::handler::{{closure}}", false),
            ("app::handler<u8>::{{closure}}", false),
            ("fn() -> core::ffi::c_int", false),
            ("alloc::boxed::Box<dyn core::ops::function::FnOnce() -> u8>", false),
            ("app::handler::{{closure}}::{{closure}}", true),
            ("app::main::{{closure}}", true),
            ("tokio::time::sleep::Sleep", true),
            ("core::pin::Pin<alloc::boxed::Box<app::resize::{{closure}}>>", true),
        ];
        for (type_name, is_future) in others {
            assert_eq!(named_function(type_name, is_future), None, "{type_name}");
        }
    }
}
