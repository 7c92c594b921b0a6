//! A load report, and its three forms: text, JSON, and the message `xds.data.orca.v3.OrcaLoadReport`.

use std::fmt::Write;

/// Balancers take 0 for "not reported".
const LEAST: f64 = 0.01;

/// The numbers of a report. All are finite.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    utilization: f64,
    requests_per_second: f64,
    errors_per_second: f64,
    /// The load of each pool.
    pools: Vec<(String, f64)>,
}

/// The numbers of the fields in the message.
mod field {
    pub(super) const RPS_FRACTIONAL: u8 = 6;
    pub(super) const EPS: u8 = 7;
    pub(super) const NAMED_METRICS: u8 = 8;
    pub(super) const APPLICATION_UTILIZATION: u8 = 9;
}

/// The two kinds of fields that the message has, in the low bits of a field's tag.
const DOUBLE: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;

impl Report {
    pub(super) fn new(utilization: f64, requests: f64, errors: f64, pools: Vec<(String, f64)>) -> Self {
        Self {
            utilization: utilization.max(LEAST),
            requests_per_second: requests.max(LEAST),
            errors_per_second: errors,
            pools,
        }
    }

    pub(super) fn text(&self) -> String {
        let Self { utilization, requests_per_second: requests, errors_per_second: errors, pools } = self;
        let mut text =
            format!("TEXT application_utilization={utilization:.4},rps_fractional={requests:.3},eps={errors:.3}");
        for (name, load) in pools {
            let _ = write!(text, ",named_metrics.{name}={load:.4}");
        }
        text
    }

    pub(super) fn json(&self) -> String {
        let Self { utilization, requests_per_second: requests, errors_per_second: errors, pools } = self;
        // The names of pools need no escapes.
        let pools: Vec<_> = pools.iter().map(|(name, load)| format!("\"{name}\":{load:.4}")).collect();
        format!(
            "JSON {{\"application_utilization\":{utilization:.4},\"rps_fractional\":{requests:.3},\"eps\":{errors:.3},\
             \"named_metrics\":{{{}}}}}",
            pools.join(",")
        )
    }

    /// The message, in base64.
    pub(super) fn binary(&self) -> String {
        let mut message = Vec::new();
        double(&mut message, field::RPS_FRACTIONAL, self.requests_per_second);
        double(&mut message, field::EPS, self.errors_per_second);
        for (name, load) in &self.pools {
            // An entry of a map is a message of its key and its value.
            let mut entry = Vec::new();
            bytes(&mut entry, 1, name.as_bytes());
            double(&mut entry, 2, *load);
            bytes(&mut message, field::NAMED_METRICS, &entry);
        }
        double(&mut message, field::APPLICATION_UTILIZATION, self.utilization);
        base64(&message)
    }
}

fn double(message: &mut Vec<u8>, field: u8, value: f64) {
    message.push(field << 3 | DOUBLE);
    message.extend(value.to_le_bytes());
}

/// The name of a pool has at most 32 bytes, so every length fits into one byte.
fn bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.push(field << 3 | LENGTH_DELIMITED);
    debug_assert!(value.len() < 128, "longer ones have a length of several bytes");
    message.push(value.len() as u8);
    message.extend(value);
}

/// Base64 with padding, as RFC 4648 describes it.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { letter.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_these_to_the_letter() {
        let report = Report::new(1.834_56, 412.5, 0.25, vec![("cpu".to_owned(), 1.834_56), ("gpu-0".to_owned(), 0.0)]);
        assert_eq!(
            report.text(),
            "TEXT application_utilization=1.8346,rps_fractional=412.500,eps=0.250,named_metrics.cpu=1.8346,named_metrics.gpu-0=0.0000"
        );
        assert_eq!(
            report.json(),
            r#"JSON {"application_utilization":1.8346,"rps_fractional":412.500,"eps":0.250,"named_metrics":{"cpu":1.8346,"gpu-0":0.0000}}"#
        );
    }

    #[test]
    fn an_idle_server_reports_no_zero_that_would_be_taken_for_no_report() {
        let report = Report::new(0.0, 0.0, 0.0, Vec::new());
        assert_eq!(report.text(), "TEXT application_utilization=0.0100,rps_fractional=0.010,eps=0.000");
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("\u{ff}\u{fe}>?", "w7/Dvj4/"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
