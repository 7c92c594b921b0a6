//! Server-sent events: the history first, then a frame each second.

use bytes::Bytes;
use serde::Serialize;

use super::series::{Point, Series};
use super::view::{View, columns};

/// The event that ends the events, when the server drains.
pub(super) const DRAIN: &[u8] = b"event: drain\ndata:\n\n";

/// The time after which a browser connects again.
const RETRY: &str = "retry: 3000\n\n";

#[derive(Serialize)]
struct Frame<'a> {
    #[serde(flatten)]
    view: &'a View,
    /// The latest point of each pool.
    points: Vec<Vec<Option<f64>>>,
}

/// The frame of one tick.
pub(super) fn frame(view: &View, points: impl Iterator<Item = Point>) -> Bytes {
    let points = points.map(|point| point.iter().map(|value| short(*value)).collect()).collect();
    let text = serde_json::to_string(&Frame { view, points }).expect("its keys are strings");
    Bytes::from(format!("data: {text}\n\n"))
}

/// Everything until the tick `n`. `page` is the identity of the page: a browser with another one loads it anew.
pub(super) fn history<'a>(n: u64, page: &str, pools: impl Iterator<Item = &'a Series>) -> Vec<u8> {
    let page = serde_json::to_string(page).expect("it is a string");
    let mut text = format!("{RETRY}event: history\ndata: {{\"n\":{n},\"page\":{page},\"pools\":[");
    for (index, series) in pools.enumerate() {
        text.push_str(if index > 0 { ",[" } else { "[" });
        for (index, column) in columns(series).enumerate() {
            text.push_str(if index > 0 { ",[" } else { "[" });
            for (index, value) in column.enumerate() {
                if index > 0 {
                    text.push(',');
                }
                match short(value) {
                    Some(value) => text.push_str(&value.to_string()),
                    None => text.push_str("null"),
                }
            }
            text.push(']');
        }
        text.push(']');
    }
    text.push_str("]}\n\n");
    text.into_bytes()
}

/// Three significant digits, or the whole number: no line shows more.
fn short(value: f32) -> Option<f64> {
    if !value.is_finite() {
        return None;
    }
    let value = f64::from(value);
    if value == 0.0 {
        return Some(0.0);
    }
    let digits = (2 - value.abs().log10().floor() as i32).max(0);
    let scale = 10_f64.powi(digits);
    Some((value * scale).round() / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_line_are_short() {
        let shown = [0.0, 3.0, 1234.0, 0.000_123_456, 98.76, f32::NAN].map(short);
        assert_eq!(shown, [Some(0.0), Some(3.0), Some(1234.0), Some(0.000_123), Some(98.8), None]);
    }
}
