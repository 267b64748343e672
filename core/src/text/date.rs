//! The date and time that a chat template may ask for.

use crate::{Error, Result};

/// Longest format that [`LocalTime::format`] takes, in bytes. Templates use about ten.
const MAX_FORMAT: usize = 256;
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A date and a time of day in the user's time zone. The core has no clock, so the caller reads one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

impl LocalTime {
    /// `month` and `day` count from 1; `hour` is 0 to 23.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] if there is no such day or time, or the year is not between 1000 and 9999.
    pub fn new(year: u32, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Result<LocalTime> {
        let known = (1000..=9999).contains(&year) && (1..=12).contains(&month);
        let valid = known && (1..=month_days(year, month)).contains(&day) && hour < 24 && minute < 60 && second < 60;
        if !valid {
            let why = format!("{year}-{month}-{day} {hour}:{minute}:{second} is not a date and a time of day");
            return Err(Error::Parameter { name: "now", why });
        }
        Ok(LocalTime { year, month, day, hour, minute, second })
    }

    /// The date and time in this format, as Python's `strftime` writes it in English. Example: `%d %B %Y`. A `-` leaves
    /// out the leading zero: `%-d`.
    ///
    /// # Errors
    ///
    /// A message that names the part of the format that is not supported.
    pub(super) fn format(&self, format: &str) -> Result<String, String> {
        if format.len() > MAX_FORMAT {
            return Err(format!("strftime_now: the format has {} bytes, more than {MAX_FORMAT}", format.len()));
        }
        let (mut text, mut rest) = (String::new(), format);
        while let Some(at) = rest.find('%') {
            text.push_str(&rest[..at]);
            let directive = &rest[at + 1..];
            let bare = directive.strip_prefix('-');
            let letter = bare.unwrap_or(directive).chars().next();
            let field = letter.and_then(|letter| self.field(letter, bare.is_none()));
            let Some((letter, field)) = letter.zip(field) else {
                let shown: String = directive.chars().take(2).collect();
                return Err(format!("strftime_now: `%{shown}` is not supported"));
            };
            text.push_str(&field);
            rest = &bare.unwrap_or(directive)[letter.len_utf8()..];
        }
        text.push_str(rest);
        Ok(text)
    }

    /// The text of one letter after a `%`, with leading zeros if `padded`. `None` if the letter is not supported.
    fn field(&self, letter: char, padded: bool) -> Option<String> {
        let number = |value: u32, width: usize| match padded {
            true => format!("{value:0width$}"),
            false => value.to_string(),
        };
        let twelve = (self.hour + 11) % 12 + 1;
        let (day, month) = (DAYS[self.weekday() as usize], MONTHS[self.month as usize - 1]);
        let all = |format| self.format(format).ok();
        Some(match letter {
            'Y' => self.year.to_string(),
            'C' => number(self.year / 100, 2),
            'y' => number(self.year % 100, 2),
            'm' => number(self.month, 2),
            'd' => number(self.day, 2),
            'H' => number(self.hour, 2),
            'I' => number(twelve, 2),
            'M' => number(self.minute, 2),
            'S' => number(self.second, 2),
            'j' => number((1..self.month).map(|month| month_days(self.year, month)).sum::<u32>() + self.day, 3),
            'w' => self.weekday().to_string(),
            'u' => ((self.weekday() + 6) % 7 + 1).to_string(),
            'e' if padded => format!("{:2}", self.day),
            'e' => self.day.to_string(),
            'A' => day.to_owned(),
            'a' => day[..3].to_owned(),
            'B' => month.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => all("%Y-%m-%d")?,
            'T' | 'X' => all("%H:%M:%S")?,
            'R' => all("%H:%M")?,
            'D' | 'x' => all("%m/%d/%y")?,
            'c' => all("%a %b %e %H:%M:%S %Y")?,
            '%' => "%".to_owned(),
            // The time zone of a local time is not known. Python writes nothing then.
            'z' | 'Z' => String::new(),
            _ => return None,
        })
    }

    /// The day of the week, 0 for Sunday. This is Sakamoto's method: the days of a year that begins in March have a
    /// simple pattern.
    fn weekday(&self) -> u32 {
        const OFFSETS: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = self.year - u32::from(self.month < 3);
        (year + year / 4 - year / 100 + year / 400 + OFFSETS[self.month as usize - 1] + self.day) % 7
    }
}

fn month_days(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected texts are Python's: `datetime.datetime(...).strftime(...)`, in the locale C.
    #[test]
    fn formats_as_python() {
        let all = "%a %A %w %u %d %-d %e %b %B %h %m %-m %y %-y %Y %C %H %-H %I %-I %p %M %-M %S %-S %j %-j %F %T %R %D %x %X %c %%[%z%Z]";
        for (date, expected) in [
            (
                [2026, 11, 29, 5, 25, 9],
                "Sun Sunday 0 7 29 29 29 Nov November Nov 11 11 26 26 2026 20 05 5 05 5 AM 25 25 09 9 333 333 2026-11-29 05:25:09 05:25 11/29/26 11/29/26 05:25:09 Sun Nov 29 05:25:09 2026 %[]",
            ),
            (
                [2024, 2, 29, 0, 0, 0],
                "Thu Thursday 4 4 29 29 29 Feb February Feb 02 2 24 24 2024 20 00 0 12 12 AM 00 0 00 0 060 60 2024-02-29 00:00:00 00:00 02/29/24 02/29/24 00:00:00 Thu Feb 29 00:00:00 2024 %[]",
            ),
            (
                [2000, 1, 1, 12, 59, 59],
                "Sat Saturday 6 6 01 1  1 Jan January Jan 01 1 00 0 2000 20 12 12 12 12 PM 59 59 59 59 001 1 2000-01-01 12:59:59 12:59 01/01/00 01/01/00 12:59:59 Sat Jan  1 12:59:59 2000 %[]",
            ),
            (
                [1900, 12, 31, 23, 0, 1],
                "Mon Monday 1 1 31 31 31 Dec December Dec 12 12 00 0 1900 19 23 23 11 11 PM 00 0 01 1 365 365 1900-12-31 23:00:01 23:00 12/31/00 12/31/00 23:00:01 Mon Dec 31 23:00:01 1900 %[]",
            ),
        ] {
            let [year, month, day, hour, minute, second] = date;
            let time = LocalTime::new(year, month, day, hour, minute, second).unwrap();
            assert_eq!(time.format(all).unwrap(), expected);
        }
        let time = LocalTime::new(2026, 11, 29, 0, 0, 0).unwrap();
        assert_eq!(time.format("é 日 %d").unwrap(), "é 日 29");
        for (format, word) in [("%", "`%`"), ("%Q", "`%Q`"), ("%-", "`%-`"), ("%é", "`%é`"), (&"x".repeat(257), "257")]
        {
            assert!(time.format(format).unwrap_err().contains(word), "{format}");
        }
    }

    #[test]
    fn there_are_only_real_days() {
        for [year, month, day, hour, minute, second] in [
            [2026, 2, 29, 0, 0, 0],
            [1900, 2, 29, 0, 0, 0],
            [2026, 13, 1, 0, 0, 0],
            [2026, 0, 1, 0, 0, 0],
            [2026, 4, 31, 0, 0, 0],
            [2026, 4, 0, 0, 0, 0],
            [999, 1, 1, 0, 0, 0],
            [10_000, 1, 1, 0, 0, 0],
            [2026, 1, 1, 24, 0, 0],
            [2026, 1, 1, 0, 60, 0],
            [2026, 1, 1, 0, 0, 60],
        ] {
            let error = LocalTime::new(year, month, day, hour, minute, second).unwrap_err();
            assert_eq!(error.code(), "parameter");
        }
    }
}
