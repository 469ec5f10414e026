//! Numbers as people read them: in few columns, with their unit, never more exact than they are.

/// A count with its thousands apart: `1,234,567`.
pub(in crate::cli) fn exact(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number in three digits with its prefix of 1000: `999`, `1.23 k`, `12.3 M`.
pub(super) fn short(number: f64) -> String {
    let (number, prefix) = scaled(number);
    format!("{number}{}{prefix}", if prefix.is_empty() { "" } else { " " })
}

/// Bytes, the same way: `999 B`, `1.23 kB`.
pub(super) fn bytes(number: f64) -> String {
    let (number, prefix) = scaled(number);
    format!("{number} {prefix}B")
}

/// A share, in percent: `<1%` is more than nothing.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 0.0 && percent < 1.0 => "<1%".to_owned(),
        percent => format!("{percent:.0}%"),
    }
}

/// A time in the two units that fit: `3 d 4 h`, `5 min 3 s`, `12 s`.
pub(in crate::cli) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = UNITS.iter().position(|(length, _)| seconds >= *length).unwrap_or(3);
    let mut left = seconds;
    let mut words = Vec::new();
    for (length, unit) in UNITS.iter().skip(first).take(2) {
        words.push(format!("{} {unit}", left / length));
        left %= length;
    }
    words.join(" ")
}

/// A short time: `85 µs`, `1.2 ms`, `3.4 s`.
pub(super) fn delay(microseconds: f64) -> String {
    match microseconds {
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 9_950.0 => format!("{:.1} ms", us / 1e3),
        us if us < 999_500.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.1} s", us / 1e6),
    }
}

/// Seconds as somebody would set them: `0.2 s`, `1 s`.
pub(super) fn interval(interval: std::time::Duration) -> String {
    format!("{} s", interval.as_secs_f64())
}

fn scaled(number: f64) -> (String, &'static str) {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let (mut number, mut prefix) = (number, 0);
    // What would be rounded to four digits is the next prefix's.
    while number >= 999.5 && prefix + 1 < PREFIXES.len() {
        number /= 1000.0;
        prefix += 1;
    }
    let text = match number {
        small if prefix == 0 && (small == 0.0 || small >= 9.95) => format!("{small:.0}"),
        small if prefix == 0 => format!("{small:.1}"),
        one if one < 9.995 => format!("{one:.2}"),
        ten if ten < 99.95 => format!("{ten:.1}"),
        hundred => format!("{hundred:.0}"),
    };
    (text, PREFIXES[prefix])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345, "12,345"),
            (123_456, "123,456"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(exact(count), text);
        }
    }

    #[test]
    fn rates_have_three_digits() {
        for (number, text) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (0.5, "0.5"),
            (9.94, "9.9"),
            (9.96, "10"),
            (999.4, "999"),
            (999.5, "1.00 k"),
            (1_234.0, "1.23 k"),
            (9_999.0, "10.0 k"),
            (99_960.0, "100 k"),
            (999_600.0, "1.00 M"),
            (1.5e10, "15.0 G"),
            (2e18, "2000 P"),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
        assert_eq!((bytes(12.0), bytes(98_765.0)), ("12 B".to_owned(), "98.8 kB".to_owned()));
    }

    #[test]
    fn shares_and_times_have_the_unit_that_fits() {
        for (share, text) in [(0.0, "0%"), (0.004, "<1%"), (0.335, "34%"), (1.0, "100%")] {
            assert_eq!(percent(share), text);
        }
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3_600, "1 h 0 min"),
            (86_400 * 3 + 3_600 * 4 + 59, "3 d 4 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
        for (microseconds, text) in [
            (0.0, "0 µs"),
            (85.4, "85 µs"),
            (999.6, "1.0 ms"),
            (1_234.0, "1.2 ms"),
            (9_960.0, "10 ms"),
            (999_600.0, "1.0 s"),
            (3_400_000.0, "3.4 s"),
        ] {
            assert_eq!(delay(microseconds), text);
        }
    }
}
