//! Texts of others, made harmless and short.

use crate::model::operation::LaunchFailure;
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write;

/// The longest name or text of somebody else, in characters before they are escaped.
const QUOTED: usize = 300;
/// How many things a list names.
const LISTED: usize = 8;

/// Escapes a text of somebody else for Slack, on one line and shortened.
pub fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for (number, c) in text.chars().enumerate() {
        if number == QUOTED {
            safe.push('…');
            break;
        }
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            c if c.is_control() || turns_text_around(c) => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// Tells the characters that change the direction in which the text around them is read.
fn turns_text_around(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Cuts an escaped text to a limit of characters, not inside of `&amp;`.
pub fn clipped(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(limit.saturating_sub(1)).collect();
    if let Some(at) = cut.rfind('&').filter(|at| !cut[*at..].contains(';')) {
        cut.truncate(at);
    }
    cut.push('…');
    cut
}

/// Lists escaped texts, the first of them.
pub fn listed(texts: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = texts.collect();
    let shown = all.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match all.len().checked_sub(LISTED).filter(|more| *more > 0) {
        Some(more) => format!("{shown} and {more} more"),
        None => shown,
    }
}

/// Writes dollars: cents, and more digits only below a dollar.
pub fn amount(dollars: f64) -> String {
    if dollars > 0.0 && dollars < 1.0 { format!("${dollars:.4}") } else { format!("${dollars:.2}") }
}

/// Writes a time in UTC, to the second.
pub fn moment(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// Writes a span as people say it, to the second.
pub fn spoken(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    for (number, unit) in [(hours, "h"), (minutes, "min"), (seconds, "s")] {
        if number > 0 {
            // Writing to a String does not fail.
            let _ = write!(text, "{}{number} {unit}", if text.is_empty() { "" } else { " " });
        }
    }
    if text.is_empty() { "0 s".to_owned() } else { text }
}

/// Says why a launch failed, and what follows.
pub fn failure(failure: &LaunchFailure) -> String {
    match failure {
        LaunchFailure::InsufficientCapacity => "EC2 has no capacity; these offers rest and others are tried".to_owned(),
        LaunchFailure::Quota { message } => format!("an account limit, so the market rests: {}", escaped(message)),
        LaunchFailure::TokenMismatch => "the client token was used with other parameters".to_owned(),
        LaunchFailure::Refused { message } => format!("EC2 refuses the request: {}", escaped(message)),
        LaunchFailure::Busy { message } => format!("too busy, it is tried again: {}", escaped(message)),
        LaunchFailure::Unanswered { message } => format!("no answer in time, the offers rest: {}", escaped(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_of_others_is_markup_or_reaches_another_line() {
        assert_eq!(escaped("<!channel> & <https://x|y>\n\u{202e}x"), "&lt;!channel&gt; &amp; &lt;https://x|y&gt;  x");
        assert_eq!(escaped(&"<".repeat(1000)), format!("{}…", "&lt;".repeat(QUOTED)));
    }

    #[test]
    fn spans_and_amounts_are_written_as_people_say_them() {
        for (seconds, text) in [(0, "0 s"), (-5, "0 s"), (59, "59 s"), (60, "1 min"), (3_661, "1 h 1 min 1 s"), (90_000, "25 h")] {
            assert_eq!(spoken(SignedDuration::from_secs(seconds)), text);
        }
        for (dollars, text) in [(0.0, "$0.00"), (0.0312, "$0.0312"), (1.0, "$1.00"), (1234.567, "$1234.57")] {
            assert_eq!(amount(dollars), text);
        }
    }

    proptest! {
        #[test]
        fn a_clipped_text_keeps_its_limit_and_no_half_of_an_escape(text in ".{0,200}", limit in 1_usize..220) {
            let cut = clipped(&escaped(&text), limit);
            prop_assert!(cut.chars().count() <= limit);
            for tail in cut.split('&').skip(1) {
                prop_assert!(["amp;", "lt;", "gt;"].iter().any(|whole| tail.starts_with(whole)), "{cut}");
            }
        }
    }
}
