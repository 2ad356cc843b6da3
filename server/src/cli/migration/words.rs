//! Numbers and times as people read them.

/// A number with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what it counts.
pub(super) fn plural(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{} {many}", count(number)),
    }
}

/// A time in the two units that matter.
pub(super) fn seconds(all: u64) -> String {
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {seconds:02} s"),
        (1..=47, _) => format!("{hours} h {minutes:02} min"),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// A time that may be short.
pub(super) fn millis(all: u64) -> String {
    match all {
        0..1000 => format!("{all} ms"),
        1000..10_000 => format!("{}.{} s", all / 1000, all / 100 % 10),
        _ => seconds(all / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!(plural(1, "record", "records"), "1 record");
        assert_eq!(plural(2000, "record", "records"), "2,000 records");
    }

    #[test]
    fn times_have_the_units_that_matter() {
        for (time, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min 01 s"),
            (3_660, "1 h 01 min"),
            (200_000, "2 d 7 h"),
        ] {
            assert_eq!(seconds(time), text);
        }
        assert_eq!(millis(999), "999 ms");
        assert_eq!(millis(1_250), "1.2 s");
        assert_eq!(millis(61_000), "1 min 01 s");
    }
}
