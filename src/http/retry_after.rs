//! `Retry-After` (RFC 9110 §10.2.3), in the forms that the RFC has, and those that servers send.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{
    HeaderMap,
    header::{DATE, RETRY_AFTER},
};

/// The longest delay that is honoured. A longer one counts as this.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Numbers above these are times since the Unix epoch: in seconds (from 1990), and in milliseconds.
const EPOCH_SECONDS: f64 = 631_152_000.0;
const EPOCH_MILLISECONDS: f64 = 631_152_000_000.0;

/// Zones that are written for UTC.
const UTC: [&str; 5] = ["gmt", "utc", "ut", "z", "+0000"];

/// The delay from `now` on that the server asked for. `None` if it asked for none that is understood.
///
/// A time is compared with the server's own `Date`, if there is one: the clocks may differ. Of several delays the longest
/// counts.
pub(crate) fn delay(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(time).unwrap_or(now);
    let values = headers.get_all(RETRY_AFTER).into_iter();
    let delays = values.filter_map(|value| value_delay(value.to_str().ok()?, now));
    delays.max().map(|delay| delay.min(LONGEST))
}

fn value_delay(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
    if let Some(time) = time(value) {
        return Some(time.duration_since(now).unwrap_or_default());
    }
    // One header that was joined of several.
    let parts = value.split([',', ';']);
    parts.filter_map(|part| seconds(part.trim(), now)).max()
}

/// A delay in seconds, with or without a fraction or unit, or a number for a time.
fn seconds(text: &str, now: SystemTime) -> Option<Duration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '.');
    let unit = text.get(number.len()..)?.trim_matches('.');
    let number: f64 = number.trim_end().parse().ok()?;
    let scale = match &*unit.to_ascii_lowercase() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "ms" => 0.001,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3_600.0,
        _ => return None,
    };
    let is_plain = unit.is_empty();
    let since_epoch = match number {
        number if is_plain && number > EPOCH_MILLISECONDS && number < EPOCH_MILLISECONDS * 10.0 => {
            Duration::try_from_secs_f64(number / 1_000.0).ok()
        }
        number if is_plain && number > EPOCH_SECONDS && number < EPOCH_SECONDS * 10.0 => {
            Duration::try_from_secs_f64(number).ok()
        }
        _ => None,
    };
    if let Some(time) = since_epoch.and_then(|time| UNIX_EPOCH.checked_add(time)) {
        return Some(time.duration_since(now).unwrap_or_default());
    }
    // Never before the time: a delay that no duration can be is the longest.
    let delay = (number * scale).max(0.0);
    Some(Duration::try_from_secs_f64(delay).unwrap_or(LONGEST))
}

// === Times ===

/// A time as RFC 9110 §5.6.7 writes it, in any case and with any zone, or as RFC 3339 does.
fn time(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text)
        .ok()
        .or_else(|| rfc_3339(text))
        .or_else(|| lenient(text))
}

/// `6 nov 1994 08:49:37 +0000`, with or without a day of the week.
fn lenient(text: &str) -> Option<SystemTime> {
    let text = text.to_ascii_lowercase();
    let text = text.split_once(',').map_or(&*text, |(_, date)| date);
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [day, month, year, time, zone @ ..] = &*parts else {
        return None;
    };
    let mut letters = month.chars();
    let month: String = letters.next()?.to_uppercase().chain(letters).collect();
    let time = on_any_day(&format!("{day:0>2} {month} {year} {time:0>8} GMT"))?;
    match zone {
        [] => Some(time),
        [zone] if UTC.contains(zone) => Some(time),
        [zone] => in_utc(time, zone),
        _ => None,
    }
}

/// The time of a date. The parser wants the right day of the week before it.
fn on_any_day(date: &str) -> Option<SystemTime> {
    let mut days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].into_iter();
    days.find_map(|day| httpdate::parse_http_date(&format!("{day}, {date}")).ok())
}

/// `1994-11-06T08:49:37Z`.
fn rfc_3339(text: &str) -> Option<SystemTime> {
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let month = months.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
    let (clock, rest) = time.split_at_checked("08:49:37".len())?;
    let zone = rest
        .trim_start_matches(|c: char| c == '.' || c.is_ascii_digit())
        .trim();
    let has_fraction = rest.starts_with('.');
    let time = on_any_day(&format!("{day} {month} {year} {clock} GMT"))?;
    // Never before the time: a fraction counts as a second.
    let time = time.checked_add(Duration::from_secs(has_fraction.into()))?;
    match zone.to_ascii_lowercase() {
        zone if zone.is_empty() || UTC.contains(&&*zone) => Some(time),
        zone => in_utc(time, &zone),
    }
}

/// A local time in the zone `+hhmm` or `-hh:mm`.
fn in_utc(time: SystemTime, zone: &str) -> Option<SystemTime> {
    let (sign, offset) = zone.split_at_checked(1)?;
    let digits: String = offset.chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = digits.split_at_checked(2).filter(|_| digits.len() == 4)?;
    let minutes = hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?;
    let offset = Duration::from_secs(minutes * 60);
    match sign {
        "+" => time.checked_sub(offset),
        "-" => time.checked_add(offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// 1994-11-06T08:47:37Z, two minutes before the time of RFC 9110's examples.
    const NOW: u64 = 784_111_777 - 120;

    fn delay_of(values: &[&'static str], date: Option<&'static str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RETRY_AFTER, HeaderValue::from_static(value));
        }
        if let Some(date) = date {
            headers.insert(DATE, HeaderValue::from_static(date));
        }
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        delay(&headers, now).map(|delay| delay.as_secs())
    }

    #[test]
    fn every_form_of_a_time_is_two_minutes_away() {
        for value in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "\"Sun, 06 Nov 1994 08:49:37 GMT\"",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "sun, 06 nov 1994 08:49:37 gmt",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 09:49:37 +0100",
            "06 Nov 1994 00:49:37 -0800",
            "1994-11-06T08:49:37Z",
            "1994-11-06 08:49:37",
            "1994-11-06T08:49:36.5Z",
            "1994-11-06T10:19:37+01:30",
            "784111777",
            "784111777000",
            "120",
            " 120 ",
            "\"120\"",
            "120.0",
            "120s",
            "120 seconds",
            "2 min",
            "120, 60",
            "120; comment",
        ] {
            assert_eq!(delay_of(&[value], None), Some(120), "{value}");
        }
    }

    #[test]
    fn a_delay_is_never_shorter_than_the_server_says() {
        let three_minutes_earlier = Some("Sun, 06 Nov 1994 08:44:37 GMT");
        for (values, date, delay) in [
            (
                &["Sun, 06 Nov 1994 08:49:37 GMT"][..],
                three_minutes_earlier,
                300,
            ),
            (&["120"], three_minutes_earlier, 120),
            (&["60", "120"], None, 120),
            (&["172800"], None, 172_800),
            (&["99999999999999999999"], None, LONGEST.as_secs()),
            (&["1e400"], None, LONGEST.as_secs()),
            (&["0"], None, 0),
            (&["-5"], None, 0),
            (&["Sat, 05 Nov 1994 08:49:37 GMT"], None, 0),
            (&["Sun, 06 Nov 1994 08:49:37 GMT"], Some("never"), 120),
        ] {
            assert_eq!(delay_of(values, date), Some(delay), "{values:?}");
        }
    }

    #[test]
    fn a_value_that_is_no_time_is_ignored() {
        for value in [
            "",
            "soon",
            "nan",
            "Sun, 99 Nov 1994 08:49:37 GMT",
            "1994-13-06T08:49:37Z",
            "5 parsecs",
            "06 Nov 1994 08:49:37 +0018446744073709551615",
            "1994-11-06T08:49:37+00:18446744073709551615",
        ] {
            assert_eq!(delay_of(&[value], None), None, "{value}");
        }
    }
}
