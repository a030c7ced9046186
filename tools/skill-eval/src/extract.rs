//! What an answer says: numbers, options, words, each with the span it was read from. Text in, spans out; knows no benchmark.
//!
//! Three readings stand side by side wherever text is read. *strict* takes one agreed form alone. *flexible* takes, in this order, what
//! follows `####`, the last `\boxed{}`, the last sentence that announces an answer, and then the last fitting thing in the text.
//! *last* takes the last fitting thing, as lm-evaluation-harness's `flexible-extract` does.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// What was read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In one normal form, so that equal answers are equal texts.
    pub answer: String,
    pub span: Range<usize>,
}

/// A pattern of this file.
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|error| panic!("a pattern of extract.rs: {error}"))
}

/// The answer proper: what precedes a turn, a question or an end token that the model went on to invent.
pub fn own_words(text: &str) -> &str {
    static NEXT: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"(?m)\n\s*(?:Question|Q|Problem|Human|User)\s*:|<\|[a-z_]+\|>|</s>|<end_of_turn>"));
    match NEXT.find(text) {
        // A text that begins so has nothing before it, and is read whole.
        Some(found) if !text[..found.start()].trim().is_empty() => &text[..found.start()],
        _ => text,
    }
}

// Numbers

/// A number as people and LaTeX write it. The groups of thousands are commas, `{,}`, thin spaces or `\,`; a currency may stand before.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"\\[dt]?frac\s*\{\s*(?P<numerator>-?[0-9]+)\s*\}\s*\{\s*(?P<denominator>[0-9]+)\s*\}",
        r"|(?P<number>[0-9]{1,3}(?:(?:,|\{,\}|\\,|\\!|_|\u{2009}|\u{202f})[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE](?P<exponent>[+-]?[0-9]{1,2})\b)?",
    ))
});

/// Every number of a text, in order, signs and separators resolved.
pub fn numbers(text: &str) -> impl Iterator<Item = Found> + '_ {
    NUMBER.captures_iter(text).filter_map(|captures| {
        let whole = captures.get(0)?;
        let before = &text[..whole.start()];
        // A digit inside a word (x1, H2O) is a name.
        if before
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphabetic() || c == '_')
            && !ends_with_command(before)
        {
            return None;
        }
        let (signed_from, is_negative) = sign(before);
        let span = signed_from.unwrap_or(whole.start())..whole.end();
        let magnitude = match (captures.name("numerator"), captures.name("denominator")) {
            (Some(numerator), Some(denominator)) => fraction(numerator.as_str(), denominator.as_str())?,
            _ => {
                let digits: String = captures["number"]
                    .chars()
                    .filter(|c| c.is_ascii_digit() || *c == '.')
                    .collect();
                match captures.name("exponent") {
                    Some(exponent) => shift(&digits, exponent.as_str().parse().ok()?),
                    None => digits,
                }
            }
        };
        let plain = plain_decimal(&magnitude);
        let answer = if is_negative { negate(&plain) } else { plain };
        Some(Found { answer, span })
    })
}

/// A LaTeX command such as `\text` may touch a number.
fn ends_with_command(before: &str) -> bool {
    before
        .trim_end_matches(|c: char| c.is_ascii_alphabetic())
        .ends_with('\\')
}

/// A minus before a number is a sign where no operand precedes it: not in `10-3` or `3 - 4`. Returns where the signed number starts.
fn sign(before: &str) -> (Option<usize>, bool) {
    let bare = before.trim_end_matches(['$', '€', '£', '¥', '\\']);
    let Some(minus) = bare.chars().next_back().filter(|c| matches!(c, '-' | '−' | '–')) else {
        return ((bare.len() < before.len()).then_some(bare.len()), false);
    };
    let start = bare.len() - minus.len_utf8();
    let operand = bare[..start].trim_end_matches(['$', '€', '£', '¥', '\\']);
    let is_operand = |c: char| c.is_alphanumeric() || matches!(c, ')' | ']' | '}' | '%' | '-' | '$');
    let touches = operand.chars().next_back().is_some_and(is_operand);
    let after_operand = operand.ends_with(' ')
        && operand
            .trim_end()
            .chars()
            .next_back()
            .is_some_and(|c| c.is_ascii_digit() || c == ')');
    // In `3 - 4` the minus stands away from its operand.
    if !touches && !after_operand {
        (Some(start), true)
    } else {
        (None, false)
    }
}

/// `numerator/denominator` as a decimal, where it has a short one.
fn fraction(numerator: &str, denominator: &str) -> Option<String> {
    let (numerator, denominator): (f64, f64) = (numerator.parse().ok()?, denominator.parse().ok()?);
    (denominator != 0.0).then(|| (numerator / denominator).to_string())
}

/// Moves the decimal point of plain digits.
fn shift(digits: &str, exponent: i32) -> String {
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{part}");
    let point = whole.len() as i32 + exponent;
    if point <= 0 {
        format!("0.{}{all}", "0".repeat(point.unsigned_abs() as usize))
    } else if point as usize >= all.len() {
        format!("{all}{}", "0".repeat(point as usize - all.len()))
    } else {
        format!("{}.{}", &all[..point as usize], &all[point as usize..])
    }
}

/// Without leading zeros and without zeros after the decimal point that say nothing: 007.50 is 7.5, and 18.00 is 18.
fn plain_decimal(digits: &str) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let part = part.trim_end_matches('0');
    match (whole, part) {
        ("0", "") => "0".into(),
        (whole, "") => format!("{sign}{whole}"),
        (whole, part) => format!("{sign}{whole}.{part}"),
    }
}

fn negate(plain: &str) -> String {
    match plain.strip_prefix('-') {
        Some(positive) => positive.to_owned(),
        None if plain == "0" => "0".into(),
        None => format!("-{plain}"),
    }
}

/// The number in a short stretch that announces one: after its last `=`, else the first.
fn number_announced(text: &str, stretch: Range<usize>) -> Option<Found> {
    let inside = &text[stretch.clone()];
    let from = inside
        .rfind(['=', '≈'])
        .map_or(0, |at| at + inside[at..].chars().next().map_or(1, char::len_utf8));
    // Signs look back, so a little of what stands before is seen too.
    let seen = text.floor_char_boundary(stretch.start.saturating_sub(16));
    let first = |from: usize| {
        numbers(&text[seen..stretch.end])
            .map(|found| Found {
                span: found.span.start + seen..found.span.end + seen,
                ..found
            })
            .find(|found| found.span.start >= stretch.start + from)
    };
    first(from).or_else(|| first(0))
}

/// The agreed form of GSM8K: `#### 18`, or the sentence `The answer is 18.` of the chain-of-thought prompt.
pub fn number_strict(text: &str) -> Option<Found> {
    static FORM: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:#### |The answer is )(\$?-?\$?[0-9][0-9.,]*)"));
    let form = FORM.captures(text)?.get(1)?;
    let digits: String = form
        .as_str()
        .trim_end_matches(['.', ','])
        .chars()
        .filter(|c| !matches!(c, ',' | '$'))
        .collect();
    if digits.matches('.').count() > 1 {
        return None;
    }
    Some(Found {
        answer: plain_decimal(&digits),
        span: form.start()..form.start() + form.as_str().trim_end_matches(['.', ',']).len(),
    })
}

pub fn number_flexible(text: &str) -> Option<Found> {
    announcements(text)
        .into_iter()
        .find_map(|stretch| number_announced(text, stretch))
        .or_else(|| numbers(own_words(text)).last())
}

/// `flexible-extract` of lm-evaluation-harness: the last match of its pattern, its characters `$ , .`-at-the-end dropped.
pub fn number_last(text: &str) -> Option<Found> {
    static FORM: LazyLock<Regex> = LazyLock::new(|| pattern(r"(-?[$0-9.,]{2,})|(-?[0-9]+)"));
    let form = FORM.find_iter(text).last()?;
    let digits: String = form.as_str().chars().filter(|c| !matches!(c, ',' | '$')).collect();
    let digits = digits.strip_suffix('.').unwrap_or(&digits);
    // What is no number is still what was read, and equals no reference.
    let answer = if digits.parse::<f64>().is_ok() {
        plain_decimal(digits)
    } else {
        digits.to_owned()
    };
    Some(Found {
        answer,
        span: form.range(),
    })
}

/// A reference number, `1,234` or `18`, in the normal form of answers.
pub fn number_of_reference(text: &str) -> Option<String> {
    numbers(text.trim()).last().map(|found| found.answer)
}

// Announcements

/// The stretches of a text that announce its answer, the most explicit kind first and the last of a kind first.
fn announcements(text: &str) -> Vec<Range<usize>> {
    static PHRASE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(concat!(
            r"(?i)(?:\b(?:the\s+)?(?:final|correct|best|right)?\s*(?:answer|option|choice|result)\b(?:\s+(?:to|for|of)\b[^.\n]{0,80}?)?",
            r"(?:\s+(?:choice|option))?\s*(?:\*\*)?\s*(?:is|are|was|would\s+be|will\s+be|should\s+be|must\s+be|:|=)",
            r"|\banswer\b\s*(?:\*\*)?\s*:)[\s:*_]*",
        ))
    });
    let own = own_words(text);
    let mut stretches = Vec::new();
    let hashes = own.rmatch_indices("####").take(ANNOUNCEMENTS_MAX);
    stretches.extend(hashes.map(|(at, mark)| at + mark.len()..line_end(own, at + mark.len())));
    let boxes = own.rmatch_indices("\\boxed").take(ANNOUNCEMENTS_MAX);
    stretches.extend(boxes.filter_map(|(at, mark)| braces(own, at + mark.len())));
    let phrases: Vec<usize> = PHRASE.find_iter(own).map(|phrase| phrase.end()).collect();
    stretches.extend(
        phrases
            .into_iter()
            .rev()
            .take(ANNOUNCEMENTS_MAX)
            .map(|end| end..sentence_end(own, end)),
    );
    stretches
}

/// BOUND: announcements of a kind that are looked at, the last ones, and how far one reaches. An answer of a megabyte may hold nothing else.
const ANNOUNCEMENTS_MAX: usize = 16;
const STRETCH_BYTES_MAX: usize = 2000;

fn line_end(text: &str, from: usize) -> usize {
    let far = text.floor_char_boundary(from + STRETCH_BYTES_MAX);
    text[from..far].find('\n').map_or(far, |at| from + at)
}

/// The end of the sentence from `from` on: a line end, or a full stop with white space after it; a decimal point is neither.
fn sentence_end(text: &str, from: usize) -> usize {
    let line = line_end(text, from);
    let bytes = text.as_bytes();
    let is_stop =
        |at: usize| matches!(bytes[at], b'.' | b'!' | b'?') && bytes.get(at + 1).is_none_or(u8::is_ascii_whitespace);
    // `B. Paris` after an announcement: a stop after one letter ends no sentence.
    let is_letter_stop = |at: usize| {
        bytes[at] == b'.'
            && at >= 1
            && bytes[at - 1].is_ascii_alphabetic()
            && (at < 2 || !bytes[at - 2].is_ascii_alphanumeric())
    };
    (from..line)
        .find(|at| is_stop(*at) && !is_letter_stop(*at))
        .unwrap_or(line)
}

/// The inside of `{…}` at `at`, braces balanced.
fn braces(text: &str, at: usize) -> Option<Range<usize>> {
    let open = at + text[at..].find(|c: char| !c.is_whitespace())?;
    if !text[open..].starts_with('{') {
        return None;
    }
    let mut depth = 0_usize;
    for (offset, byte) in text.as_bytes()[open..].iter().take(STRETCH_BYTES_MAX).enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(open + 1..open + offset);
        }
    }
    None
}

// Options

/// One option of a question: its letter and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub letter: char,
    pub text: String,
}

/// The options that a prompt offers last: lines `(A) text`, `A. text` or `A) text`.
pub fn choices_of(prompt: &str) -> Vec<Choice> {
    static LINE: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"(?m)^\s*(?:[(\[{]([A-Z])[)\]}]|([A-Z])[.)])\s*(\S.*?)\s*$"));
    let mut choices: Vec<Choice> = Vec::new();
    for line in LINE.captures_iter(prompt) {
        let letter = line
            .get(1)
            .or(line.get(2))
            .and_then(|letter| letter.as_str().chars().next())
            .unwrap_or_default();
        // Each question starts again at A.
        if letter == 'A' {
            choices.clear();
        }
        if letter as u32 == 'A' as u32 + choices.len() as u32 {
            choices.push(Choice {
                letter,
                text: line[3].to_owned(),
            });
        }
    }
    choices
}

/// The agreed form of an option: the answer begins with its letter, or says `the answer is (B)`.
pub fn option_strict(text: &str) -> Option<Found> {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"^\s*\(?([A-Z])\)?(?:[.):,\s]|$)|[Tt]he (?:correct )?answer is:? \(?([A-Z])\)?(?:[.,\s]|$)")
    });
    let captures = FORM.captures(text)?;
    let letter = captures.get(1).or(captures.get(2))?;
    Some(Found {
        answer: letter.as_str().to_owned(),
        span: letter.range(),
    })
}

pub fn option_flexible(text: &str, choices: &[Choice]) -> Option<Found> {
    // A letter in brackets anywhere; a bare one only where it cannot be a word.
    static BRACKETED: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"[(\[{<*`]+\s*(?:\\text\s*\{\s*\(?)?([A-Z])(?:\)?\s*\})?\s*[)\]}>*`]+"));
    static LED: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r#"^[\s"'*_(\[{$\\]*(?:(?i:option|choice|letter)\s+)?(?:\\?(?:text|mathrm|mathbf)\s*\{\s*\(?)?[(\["'*]*([A-Z])(?:[\s.):,;\]}*"'$]|$)"#,
        )
    });
    static NAMED: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(?i:option|choice|answer)\s+[(\[]?([A-Z])\b"));
    static LINE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^\s*\(?([A-Z])[).:]?\s*$"));
    let offered =
        |found: &Found| choices.is_empty() || choices.iter().any(|choice| found.answer.starts_with(choice.letter));
    let letter = |captures: regex::Captures, shift: usize| {
        let letter = captures.get(1)?;
        Some(Found {
            answer: letter.as_str().to_owned(),
            span: letter.start() + shift..letter.end() + shift,
        })
    };
    let within = |stretch: Range<usize>| {
        let inside = &text[stretch.clone()];
        let led = LED
            .captures(inside)
            .and_then(|captures| letter(captures, stretch.start))
            .filter(&offered);
        let bracketed = || {
            BRACKETED
                .captures_iter(inside)
                .filter_map(|captures| letter(captures, stretch.start))
                .find(&offered)
        };
        let by_text = || choice_by_text(text, stretch.clone(), choices);
        led.or_else(bracketed).or_else(by_text)
    };
    let own = own_words(text);
    announcements(text)
        .into_iter()
        .find_map(within)
        .or_else(|| {
            // The whole answer begins with a letter and its mark, `B) because …`; "A" alone may be the article.
            static OPENING: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[\s*(\[]*([A-Z])(?:[.):\]*]|\s*$)"));
            OPENING
                .captures(own)
                .and_then(|captures| letter(captures, 0))
                .filter(&offered)
        })
        .or_else(|| {
            BRACKETED
                .captures_iter(own)
                .filter_map(|captures| letter(captures, 0))
                .filter(&offered)
                .last()
        })
        .or_else(|| {
            NAMED
                .captures_iter(own)
                .filter_map(|captures| letter(captures, 0))
                .filter(&offered)
                .last()
        })
        .or_else(|| {
            LINE.captures_iter(own)
                .filter_map(|captures| letter(captures, 0))
                .filter(&offered)
                .last()
        })
        .or_else(|| choice_by_text(text, 0..own.len(), choices))
}

/// The one choice whose text stands in a stretch; two are none.
fn choice_by_text(text: &str, stretch: Range<usize>, choices: &[Choice]) -> Option<Found> {
    let inside = &text[stretch.clone()];
    let lower = inside.to_lowercase();
    // Lower case of some letters is longer: then positions do not carry over.
    if lower.len() != inside.len() {
        return None;
    }
    let mut found = choices.iter().filter_map(|choice| {
        let wanted = choice.text.trim_end_matches('.').to_lowercase();
        let at = word_match(&lower, &wanted)?;
        Some(Found {
            answer: choice.letter.to_string(),
            span: stretch.start + at..stretch.start + at + wanted.len(),
        })
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Where `wanted` stands in `text` with no letter or digit touching it.
fn word_match(text: &str, wanted: &str) -> Option<usize> {
    if wanted.is_empty() {
        return None;
    }
    text.match_indices(wanted).map(|(at, _)| at).find(|at| {
        let touches = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !touches(text[..*at].chars().next_back()) && !touches(text[at + wanted.len()..].chars().next())
    })
}

// Words

/// One word of a closed set, such as yes and no. Words that others hold (`invalid`, `valid`) come apart at word borders.
pub fn word_flexible(text: &str, words: &[&str]) -> Option<Found> {
    let own = own_words(text);
    let lower = own.to_ascii_lowercase();
    let all = |stretch: Range<usize>| {
        let inside = &lower[stretch.clone()];
        let mut found: Vec<Found> = words
            .iter()
            .flat_map(|word| {
                inside
                    .match_indices(word)
                    .map(|(at, _)| at)
                    .filter(|at| {
                        let touches = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
                        !touches(inside[..*at].chars().next_back())
                            && !touches(inside[at + word.len()..].chars().next())
                    })
                    .map(|at| Found {
                        answer: (*word).to_owned(),
                        span: stretch.start + at..stretch.start + at + word.len(),
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        found.sort_by_key(|found| found.span.start);
        found
    };
    announcements(text)
        .into_iter()
        .find_map(|stretch| {
            let found = all(stretch);
            // "True and False = False": an equation ends with its value.
            if own[found.first()?.span.end..found.last()?.span.start.max(found.first()?.span.end)].contains('=') {
                found.into_iter().next_back()
            } else {
                found.into_iter().next()
            }
        })
        .or_else(|| all(0..own.len()).pop())
}

/// `the answer is …` up to the end of the line, its full stop dropped: the form of the published BBH prompts, taken where it first stands.
pub fn sentence_strict(text: &str) -> Option<Found> {
    static FORM: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:the answer is )([^\n]*)"));
    let rest = FORM.captures(text)?.get(1)?;
    let answer = rest.as_str().trim_end();
    let answer = answer.strip_suffix('.').unwrap_or(answer).trim();
    (!answer.is_empty()).then(|| Found {
        answer: answer.to_owned(),
        span: rest.start()..rest.start() + answer.len(),
    })
}

/// A free text that was announced, in the normal form of `normal`, else the last line.
pub fn text_flexible(text: &str, normal: impl Fn(&str) -> String) -> Option<Found> {
    let own = own_words(text);
    let found = |stretch: Range<usize>| {
        let answer = normal(&own[stretch.clone()]);
        (!answer.is_empty()).then_some(Found { answer, span: stretch })
    };
    announcements(text).into_iter().find_map(found).or_else(|| {
        let line = own.trim_end();
        let start = line.rfind('\n').map_or(0, |at| at + 1);
        found(start..line.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flexible(text: &str) -> String {
        number_flexible(text).map_or("unread".into(), |found| found.answer)
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, number) in [
            ("She makes $18 every day.", "18"),
            ("#### 1,234,567", "1234567"),
            ("The answer is 70,000 dollars, not 7.", "70000"),
            ("The answer is $1,072.50.", "1072.5"),
            ("The answer is 18.00", "18"),
            ("The answer is: **42**", "42"),
            ("**Answer:** 42 apples out of 50", "42"),
            ("Final answer: -5 degrees", "-5"),
            ("The answer is −5.", "-5"),
            ("The answer is -$5.", "-5"),
            ("The answer is $-5$.", "-5"),
            ("It costs 10-3=7", "7"),
            ("Thus 10 - 3", "3"),
            ("The answer is 5 + 3 = 8.", "8"),
            ("So the final answer is 2 * 30 = $60 per week for 4 weeks.", "60"),
            ("Therefore \\boxed{1{,}234}.", "1234"),
            ("Therefore $\\boxed{x = 1\\,234 \\text{ m}}$.", "1234"),
            ("$$\\boxed{\\frac{1}{2}}$$", "0.5"),
            ("The answer is 50%.", "50"),
            ("answer is .5", "0.5"),
            ("The answer is 007.", "7"),
            ("The answer is 1.5e3", "1500"),
            ("The answer is 12\n\nQ: Another? A: The answer is 99.", "12"),
            ("#### 12\n\nThe answer to 7 is odd: 3", "12"),
            ("x1 is 4 and H2O", "4"),
            ("The final answer is:\n\n\\boxed{18}", "18"),
            ("The final answer is:\n18", "18"),
            ("no number here", "unread"),
            ("", "unread"),
        ] {
            assert_eq!(flexible(text), number, "{text:?}");
        }
    }

    #[test]
    fn a_span_holds_exactly_what_was_read() {
        for (text, read) in [
            ("é costs −$1,234.50 now", "−$1,234.50"),
            ("The answer is $18.", "$18"),
            ("#### 7", "7"),
        ] {
            let found = number_flexible(text).unwrap();
            assert_eq!(&text[found.span], read);
        }
    }

    #[test]
    fn strict_takes_the_agreed_forms_alone() {
        let strict = |text: &str| number_strict(text).map(|found| found.answer);
        assert_eq!(strict("#### 1,234").as_deref(), Some("1234"));
        assert_eq!(strict("The answer is $18.").as_deref(), Some("18"));
        assert_eq!(strict("the total is 18"), None);
        assert_eq!(strict("The answer is 1.2.3"), None);
    }

    #[test]
    fn last_is_what_flexible_extract_of_lm_evaluation_harness_takes() {
        let last = |text: &str| number_last(text).map(|found| found.answer);
        assert_eq!(last("#### 18 and then 20.").as_deref(), Some("20"));
        assert_eq!(last("It is $1,234.00").as_deref(), Some("1234"));
        // Its pattern takes two stops for a number; a reference never equals them.
        assert_eq!(last("It is 18...").as_deref(), Some("18.."));
    }

    fn choices() -> Vec<Choice> {
        choices_of("Which?\nOptions:\n(A) the red one\n(B) the blue one\n(C) neither")
    }

    #[test]
    fn options_are_read_in_any_bracket_and_by_their_text() {
        for (text, letter) in [
            ("(B)", "B"),
            ("B", "B"),
            ("B.", "B"),
            ("B) the blue one", "B"),
            ("[B]", "B"),
            ("{B}", "B"),
            ("**B**", "B"),
            ("The answer is (B).", "B"),
            ("So the answer is B.", "B"),
            ("The correct option is B because A is red.", "B"),
            ("**Answer:** (B) the blue one", "B"),
            ("Answer: $\\boxed{\\text{(B)}}$", "B"),
            ("\\boxed{B}", "B"),
            ("Let us see. (A) is wrong, so it must be (B)", "B"),
            ("The answer is the blue one.", "B"),
            ("A good question. I would choose option C", "C"),
            ("I think it is the red one.", "A"),
        ] {
            assert_eq!(
                option_flexible(text, &choices()).map(|found| found.answer).as_deref(),
                Some(letter),
                "{text:?}"
            );
        }
        for text in [
            "",
            "I do not know.",
            "the red one or the blue one",
            "A cat sat there.",
            "(Z)",
        ] {
            assert_eq!(option_flexible(text, &choices()), None, "{text:?}");
        }
    }

    #[test]
    fn words_stand_alone_and_an_equation_ends_with_its_value() {
        let word = |text: &str, words: &[&str]| word_flexible(text, words).map(|found| found.answer);
        assert_eq!(
            word("The argument is invalid.", &["valid", "invalid"]).as_deref(),
            Some("invalid")
        );
        assert_eq!(
            word("So the answer is valid, not invalid.", &["valid", "invalid"]).as_deref(),
            Some("valid")
        );
        assert_eq!(
            word("The answer is: True and False = False.", &["true", "false"]).as_deref(),
            Some("false")
        );
        assert_eq!(word("No one knows. Yes.", &["yes", "no"]).as_deref(), Some("yes"));
        assert_eq!(word("Nothing", &["yes", "no"]), None);
    }

    #[test]
    fn the_options_of_the_last_question_count() {
        let few_shot = "Q: a\n(A) x\n(B) y\n(C) z\nA: (C)\n\nQ: b\n(A) one\n(B) two\nA:";
        let letters: String = choices_of(few_shot).iter().map(|choice| choice.letter).collect();
        assert_eq!(letters, "AB");
    }
}
