//! Timestamps as people and JavaScript write them.

use std::time::{SystemTime, UNIX_EPOCH};

/// The length of a day.
pub const MILLIS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

const DAYS_FROM_MARCH_OF_YEAR_0_TO_1970: i64 = 719_468;

/// A time as `Date.prototype.toISOString` writes it: `2026-01-31T23:59:59.999Z`. Always in UTC, truncated to
/// milliseconds.
#[must_use]
pub fn utc_timestamp(time: SystemTime) -> String {
    let millis = unix_millis(time);
    let (year, month, day) = civil_date(millis.div_euclid(MILLIS_PER_DAY));
    let of_day = millis.rem_euclid(MILLIS_PER_DAY);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Parses such a timestamp into milliseconds since 1970. `None` if it is not one.
#[must_use]
pub fn parse_utc_timestamp(text: &str) -> Option<i64> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00.000Z";
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let fits = |(byte, shape): (&u8, &u8)| if is_digit(shape) { is_digit(byte) } else { byte == shape };
    if text.len() != SHAPE.len() || !text.as_bytes().iter().zip(SHAPE).all(fits) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().ok();
    let (year, month, of_month) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second, milli) = (number(11..13)?, number(14..16)?, number(17..19)?, number(20..23)?);
    let day = unix_day(year, month, of_month);
    if civil_date(day) != (year, month, of_month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(day * MILLIS_PER_DAY + ((hour * 60 + minute) * 60 + second) * 1000 + milli)
}

/// The number of days since 1970-01-01; the inverse of [`civil_date`].
fn unix_day(year: i64, month: i64, of_month: i64) -> i64 {
    // The year begins in March, as in `civil_date`.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before + (153 * month + 2) / 5 + of_month - 1 - DAYS_FROM_MARCH_OF_YEAR_0_TO_1970
}

/// Milliseconds since 1970, rounded down, and limited to the range of `i64`, 292 million years.
#[must_use]
pub fn unix_millis(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => {
            i64::try_from(before.duration().as_nanos().div_ceil(1_000_000)).map_or(i64::MIN, |millis| -millis)
        }
    }
}

/// Year, month and day in the Gregorian calendar, for a number of days since 1970-01-01.
///
/// Years are counted as if they began in March, so the leap day is the last day of a year. Then the days
/// before a month follow one linear formula (153 days every five months), and the days before a year depend
/// on the year alone.
fn civil_date(unix_day: i64) -> (i64, i64, i64) {
    const DAYS_PER_400_YEARS: i64 = 146_097;

    let day = unix_day + DAYS_FROM_MARCH_OF_YEAR_0_TO_1970;
    let (cycle, day_of_cycle) = (day.div_euclid(DAYS_PER_400_YEARS), day.rem_euclid(DAYS_PER_400_YEARS));
    // The leap days before this day are taken out, so that all years have 365 days: one every 4 years (1460
    // days), but not every 100 years (36,524 days), except at the very end of the cycle.
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524
        - day_of_cycle / (DAYS_PER_400_YEARS - 1))
        / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let in_next_year = i64::from(months_since_march >= 10);
    let month = months_since_march + 3 - 12 * in_next_year;
    (400 * cycle + year_of_cycle + in_next_year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[test]
    fn notable_times_are_written_as_javascript_writes_them() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800_001, "2024-02-29T00:00:00.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(utc_timestamp(UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
        assert_eq!(utc_timestamp(UNIX_EPOCH - Duration::from_nanos(1)), "1969-12-31T23:59:59.999Z");
        assert_eq!(utc_timestamp(UNIX_EPOCH - Duration::from_secs(86_400)), "1969-12-31T00:00:00.000Z");
    }

    #[test]
    fn every_day_of_four_centuries_is_one_after_the_day_before() {
        let mut before = civil_date(-1);
        assert_eq!(before, (1969, 12, 31));
        for day in 0..146_097 {
            let (year, month, of_month) = civil_date(day);
            let leap = before.0 % 4 == 0 && (before.0 % 100 != 0 || before.0 % 400 == 0);
            let month_length = match before.1 {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match before {
                (year, 12, 31) => (year + 1, 1, 1),
                (year, month, last) if last == month_length => (year, month + 1, 1),
                (year, month, other) => (year, month, other + 1),
            };
            assert_eq!((year, month, of_month), expected, "day {day}");
            assert_eq!(unix_day(year, month, of_month), day);
            before = expected;
        }
    }

    #[test]
    fn a_timestamp_is_read_as_it_was_written_and_other_text_is_refused() {
        for millis in [0, 951_782_399_999, 1_709_164_800_001, 4_107_542_400_000, 253_402_300_799_999] {
            let text = utc_timestamp(UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(parse_utc_timestamp(&text), i64::try_from(millis).ok(), "{text}");
        }
        for text in [
            "",
            "2026-01-01",
            "2026-13-01T00:00:00.000Z",
            "2026-02-29T00:00:00.000Z",
            "2026-00-10T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
            "2026-01-01T00:60:00.000Z",
            "2026-01-01T00:00:61.000Z",
            "2026-01-01T00:00:00.000z",
            "2026-01-01T00:00:00.000+",
            "2026-01-01 00:00:00.000Z",
            "+026-01-01T00:00:00.000Z",
            "2026-01-01T00:00:00.00\u{e9}",
        ] {
            assert_eq!(parse_utc_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn timestamps_agree_with_the_date_command() {
        for seconds in [1, 68_169_599, 1_000_000_000, 1_767_225_599, 2_147_483_648, 32_503_680_000_u64] {
            let date = Command::new("date")
                .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%S.000Z"])
                .output()
                .unwrap();
            let text = utc_timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(text, String::from_utf8(date.stdout).unwrap().trim_end());
        }
    }
}
