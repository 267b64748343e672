//! Numbers as texts for people: three digits, and the unit that fits.

use nemoflash_bench::report::Summary;

/// A number with three digits and a comma between thousands: `0.123`, `4.56`, `78.9`, `1,234`.
pub fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        x if x < 0.0005 => format!("{value:.1e}"),
        x if x < 0.9995 => format!("{value:.3}"),
        x if x < 9.995 => format!("{value:.2}"),
        x if x < 99.95 => format!("{value:.1}"),
        _ => thousands(value),
    }
}

/// A round number without needless decimals: `0.5`, `20`, `1,000`.
pub fn short(value: f64) -> String {
    let text = digits(value);
    match text.contains('.') && !text.contains('e') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A rounded number with commas. Numbers from 10¹⁸ on are written as a power of ten.
pub fn thousands(value: f64) -> String {
    if value.abs().is_nan() || value.abs() >= 1e18 {
        return format!("{value:.1e}");
    }
    let (sign, digits) = (if value < -0.5 { "-" } else { "" }, format!("{:.0}", value.abs()));
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Tokens per second: more is better.
    TokensPerSecond,
    /// Seconds: less is better.
    Seconds,
}

impl Unit {
    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            Unit::TokensPerSecond => "tokens/s",
            Unit::Seconds => "s",
        }
    }

    /// The factor that turns a value into the unit that fits it.
    pub fn scale(self, value: &Summary) -> f64 {
        match self {
            Unit::TokensPerSecond => 1.0,
            Unit::Seconds => seconds_in(value.median).0,
        }
    }

    /// A value and its interval as two texts, such as `986` and `980 to 991`. Seconds get the unit that fits the median, such
    /// as `1.35 s` and `1.31 to 1.40`.
    pub fn interval(self, value: &Summary) -> (String, String) {
        let name = match self {
            Unit::TokensPerSecond => "",
            Unit::Seconds => seconds_in(value.median).1,
        };
        let times = self.scale(value);
        let [median, low, high] = [value.median, value.low, value.high].map(|x| digits(x * times));
        (format!("{median} {name}").trim_end().to_owned(), format!("{low} to {high}"))
    }
}

/// The unit of time that fits `most` seconds: (the factor from seconds, its short name).
pub fn seconds_in(most: f64) -> (f64, &'static str) {
    match most {
        x if x < 1e-3 => (1e6, "µs"),
        x if x < 1.0 => (1e3, "ms"),
        _ => (1.0, "s"),
    }
}

/// The whole name of the unit that fits `most` seconds.
pub fn seconds_named(most: f64) -> &'static str {
    match seconds_in(most).1 {
        "µs" => "microseconds",
        "ms" => "milliseconds",
        _ => "seconds",
    }
}

/// Seconds in the unit that fits: `12.3 ms`.
pub fn seconds(value: f64) -> String {
    let (times, unit) = seconds_in(value);
    format!("{} {unit}", digits(value * times))
}

/// Bytes in a decimal unit: `1.23 GB`.
pub fn bytes(value: f64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.into_iter().find(|(size, _)| value >= *size) {
        Some((size, unit)) => format!("{} {unit}", digits(value / size)),
        None => format!("{} B", thousands(value)),
    }
}

/// A share in percent with a space that does not break: `42 %`, `0.4 %`.
pub fn share(value: f64) -> String {
    let percent = value * 100.0;
    if percent < 0.95 && percent > 0.0 {
        format!("{percent:.1}\u{a0}%")
    } else {
        format!("{}\u{a0}%", thousands(percent))
    }
}

/// Shortens a text to `most` characters. `…` marks where characters are missing.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        let values =
            [(0.0, "0"), (0.12345, "0.123"), (4.5612, "4.56"), (9.996, "10.0"), (78.94, "78.9"), (99.96, "100")];
        for (value, text) in values {
            assert_eq!(digits(value), text);
        }
        assert_eq!([digits(44443.2), digits(1e6), digits(1e300)], ["44,443", "1,000,000", "1.0e300"]);
    }

    #[test]
    fn units_fit() {
        assert_eq!([seconds(0.0000123), seconds(0.0123), seconds(12.3)], ["12.3 µs", "12.3 ms", "12.3 s"]);
        assert_eq!([bytes(12.0), bytes(1.9e9), bytes(2.96e12)], ["12 B", "1.90 GB", "2.96 TB"]);
        assert_eq!(
            [share(0.004), share(0.421), share(1.0), share(0.0)],
            ["0.4\u{a0}%", "42\u{a0}%", "100\u{a0}%", "0\u{a0}%"]
        );
    }
}
