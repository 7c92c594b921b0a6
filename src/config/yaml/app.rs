//! The section `app`, which belongs to the application: it is kept unread until the application asks for it.

use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_yaml::{Mapping, Value};

use super::source::Source;
use super::tree::{Data, Node};
use crate::config::error::{ConfigError, Position};
use crate::config::settings::Config;

/// The section `app`: its value, if there is one, and the whole text, so that an error of the application's type can name
/// its line. Settings that were not read have neither.
#[derive(Clone, Default)]
pub(in crate::config) struct App {
    value: Option<Value>,
    source: Option<Source>,
}

/// The section of the application.
impl Config {
    /// Reads the section `app`, which belongs to the application, as a `T`. If there is no such section, `T` is read
    /// from an empty one.
    ///
    /// ```
    /// use serde::Deserialize;
    /// use tower_offload::Config;
    ///
    /// #[derive(Debug, Deserialize)]
    /// #[serde(deny_unknown_fields)]
    /// struct Settings {
    ///     database: String,
    /// }
    ///
    /// let config = Config::from_yaml("app:\n  database: notes.db\n")?;
    /// assert_eq!(config.app::<Settings>()?.database, "notes.db");
    ///
    /// let config = Config::from_yaml("app:\n  database: [notes.db]\n")?;
    /// assert_eq!(
    ///     config.app::<Settings>().unwrap_err().to_string(),
    ///     "<yaml>:2:13: app.database: invalid type: sequence, expected a string"
    /// );
    /// # Ok::<(), tower_offload::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the section is not a valid `T`: the error names the file, the line and the key.
    pub fn app<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let App { value, source } = &self.app;
        let result = match (value, source) {
            (Some(_), Some(source)) => read(&source.text).map_err(refused),
            _ => T::deserialize(Value::Mapping(Mapping::new())).map_err(|error| {
                let message = format!("{error}; add the section `app` with what is missing");
                ConfigError::new(message).at_key("app")
            }),
        };
        result.map_err(|error| match source {
            Some(source) => error.in_file(&source.name),
            None => error,
        })
    }

    /// Sets the section `app`.
    ///
    /// # Errors
    ///
    /// If the value is not a mapping (a struct or a map), or cannot be written as YAML.
    pub fn with_app(mut self, value: impl Serialize) -> Result<Self, ConfigError> {
        let failed = |error: serde_yaml::Error| ConfigError::new(error.to_string()).at_key("app");
        let value = serde_yaml::to_value(value).map_err(failed)?;
        let mut root = Mapping::new();
        root.insert("app".into(), value.clone());
        let text = serde_yaml::to_string(&root).map_err(failed)?;
        // Read with the rules for a file, so that the section can be written and read again.
        self.app = Self::from_source(&Source::new("<app>", &text)?)?.app;
        Ok(self)
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_yaml::Error> {
    match serde_yaml::Deserializer::from_str(text).next() {
        Some(document) => AppSeed(std::marker::PhantomData).deserialize(document),
        None => T::deserialize(Value::Null),
    }
}

/// The error of the application's type. Its place and key are taken from the parser's message.
fn refused(error: serde_yaml::Error) -> ConfigError {
    let place = error.location().map(|place| Position { line: place.line(), column: place.column() });
    let mut message = error.to_string();
    if let Some(Position { line, column }) = place
        && let Some(end) = message.rfind(&format!(" at line {line} column {column}"))
    {
        message.truncate(end);
    }
    let key = match message.split_once(": ") {
        Some((key, rest)) if key == "app" || key.starts_with("app.") || key.starts_with("app[") => {
            let key = key.to_owned();
            message = rest.to_owned();
            key
        }
        _ => "app".to_owned(),
    };
    ConfigError::new(message).at(place).at_key(key)
}

impl App {
    pub(super) fn read(node: Option<&Node>, source: &Source) -> Self {
        Self { value: node.map(to_value), source: Some(source.clone()) }
    }

    pub(super) const fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }
}

fn to_value(node: &Node) -> Value {
    match &node.data {
        Data::Null => Value::Null,
        Data::Bool(value) => Value::Bool(*value),
        Data::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
            (Ok(value), _) => Value::Number(value.into()),
            (_, Ok(value)) => Value::Number(value.into()),
            _ => Value::Number((*value as f64).into()),
        },
        Data::Float(value) => Value::Number((*value).into()),
        Data::Text(text) => Value::String(text.clone()),
        Data::List(nodes) => Value::Sequence(nodes.iter().map(to_value).collect()),
        Data::Mapping(entries) => {
            Value::Mapping(entries.iter().map(|(key, value)| (to_value(key), to_value(value))).collect())
        }
        Data::Tagged(tag, node) => Value::Tagged(Box::new(serde_yaml::value::TaggedValue {
            tag: serde_yaml::value::Tag::new(tag.as_str()),
            value: to_value(node),
        })),
    }
}

/// Compares the sections, and not the files that they were read from.
impl PartialEq for App {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// Reads the value of the key `app` as a `T`, and skips the others.
struct AppSeed<T>(std::marker::PhantomData<T>);

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for AppSeed<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for AppSeed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping with the key `app`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<T, A::Error> {
        let mut found = None;
        while let Some(key) = mapping.next_key::<String>()? {
            if key == "app" {
                found = Some(mapping.next_value()?);
            } else {
                mapping.next_value::<IgnoredAny>()?;
            }
        }
        found.ok_or_else(|| serde::de::Error::missing_field("app"))
    }
}
