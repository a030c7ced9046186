//! The rules, one for each instruction.

use regex::{Regex, RegexBuilder};
use serde::de::IgnoredAny;

use super::Arguments;
use super::words;

pub enum Check {
    /// All of these are there.
    Keywords(Vec<Regex>),
    Forbidden(Vec<Regex>),
    Occurrences(Regex, Bound),
    Letters(char, Bound),
    Sentences(Bound),
    Words(Bound),
    CapitalWords(Bound),
    /// Between `***`.
    Paragraphs(usize),
    FirstWord {
        paragraph_count: usize,
        place: usize,
        word: String,
    },
    /// At least so many matches.
    Matches(Regex, usize),
    Bullets(usize),
    Highlights(usize),
    Sections(Regex, usize),
    OneOf(&'static [&'static str]),
    Json,
    Title,
    TwoResponses,
    Repeats(String),
    EndsWith(String),
    NoComma,
    Quoted,
    /// Upper or lower case throughout, and English.
    EnglishCapitals,
    EnglishSmall,
    /// What the harness asks a detector, or draws at random.
    Unknown,
}

/// `less than` or `at least` a count.
pub enum Bound {
    Less(usize),
    Least(usize),
}

impl Bound {
    fn new(arguments: &Arguments, relation: &str, count: &str) -> Result<Bound, String> {
        let count = arguments.number(count)?;
        match arguments.text(relation)? {
            "less than" => Ok(Bound::Less(count)),
            "at least" => Ok(Bound::Least(count)),
            _ => Err(format!("`{relation}` is neither less than nor at least")),
        }
    }

    fn holds(&self, count: usize) -> bool {
        match self {
            Bound::Less(limit) => count < *limit,
            Bound::Least(limit) => count >= *limit,
        }
    }

    /// Of a count that lies between two; none where they differ.
    fn holds_between(&self, low: usize, high: usize) -> Option<bool> {
        let [low, high] = [low, high].map(|count| self.holds(count));
        (low == high).then_some(low)
    }
}

const CONSTRAINED: &[&str] = &["My answer is yes.", "My answer is no.", "My answer is maybe."];

impl Check {
    pub fn new(name: &str, given: &Arguments) -> Result<Check, String> {
        Ok(match name {
            "keywords:existence" => Check::Keywords(patterns(given.texts("keywords")?, |word| word.to_owned())?),
            "keywords:forbidden_words" => Check::Forbidden(patterns(given.texts("forbidden_words")?, |word| {
                format!(r"\b{word}\b")
            })?),
            "keywords:frequency" => Check::Occurrences(
                pattern(strip(given.text("keyword")?))?,
                Bound::new(given, "relation", "frequency")?,
            ),
            "keywords:letter_frequency" => letters(given)?,
            "language:response_language" => Check::Unknown,
            "length_constraints:number_sentences" => Check::Sentences(Bound::new(given, "relation", "num_sentences")?),
            "length_constraints:number_words" => Check::Words(Bound::new(given, "relation", "num_words")?),
            "length_constraints:number_paragraphs" => Check::Paragraphs(given.number("num_paragraphs")?),
            "length_constraints:nth_paragraph_first_word" => first_word(given)?,
            "detectable_content:number_placeholders" => {
                Check::Matches(fixed(r"\[.*?\]"), given.number("num_placeholders")?)
            }
            "detectable_content:postscript" => Check::Matches(postscript(strip(given.text("postscript_marker")?))?, 1),
            "detectable_format:number_bullet_lists" => Check::Bullets(given.number("num_bullets")?),
            "detectable_format:constrained_response" => Check::OneOf(CONSTRAINED),
            "detectable_format:number_highlighted_sections" => Check::Highlights(given.number("num_highlights")?),
            "detectable_format:multiple_sections" => {
                let mark = strip(given.text("section_spliter")?);
                let mark =
                    Regex::new(&format!(r"\s?{mark}\s?\d+\s?")).map_err(|_| "`section_spliter` is no expression")?;
                Check::Sections(mark, given.number("num_sections")?)
            }
            "detectable_format:json_format" => Check::Json,
            "detectable_format:title" => Check::Title,
            "combination:two_responses" => Check::TwoResponses,
            "combination:repeat_prompt" => Check::Repeats(strip(given.text("prompt_to_repeat")?).to_lowercase()),
            "startend:end_checker" => Check::EndsWith(strip(given.text("end_phrase")?).to_lowercase()),
            "startend:quotation" => Check::Quoted,
            "change_case:capital_word_frequency" => {
                Check::CapitalWords(Bound::new(given, "capital_relation", "capital_frequency")?)
            }
            "change_case:english_capital" => Check::EnglishCapitals,
            "change_case:english_lowercase" => Check::EnglishSmall,
            "punctuation:no_comma" => Check::NoComma,
            _ => return Err("an instruction that IFEval does not have".to_owned()),
        })
    }

    /// Whether a text that is not empty follows the instruction.
    pub fn follows(&self, text: &str) -> Option<bool> {
        Some(match self {
            Check::Keywords(words) => words.iter().all(|word| word.is_match(text)),
            Check::Forbidden(words) => !words.iter().any(|word| word.is_match(text)),
            Check::Occurrences(word, bound) => bound.holds(word.find_iter(text).count()),
            Check::Letters(letter, bound) => {
                bound.holds(text.to_lowercase().chars().filter(|found| found == letter).count())
            }
            Check::Sentences(bound) => {
                let (low, high) = words::sentences(text);
                return bound.holds_between(low, high);
            }
            Check::Words(bound) => bound.holds(fixed(r"\w+").find_iter(text).count()),
            Check::CapitalWords(bound) => bound.holds(words::capital_count(text)),
            Check::Paragraphs(count) => paragraph_count(text) == Some(*count),
            Check::FirstWord {
                paragraph_count,
                place,
                word,
            } => has_first_word(text, *paragraph_count, *place, word),
            Check::Matches(mark, count) => mark.find_iter(text).count() >= *count,
            Check::Bullets(count) => {
                let stars = fixed(r"(?m)^\s*\*[^\*].*$").find_iter(text).count();
                stars + fixed(r"(?m)^\s*-.*$").find_iter(text).count() == *count
            }
            Check::Highlights(count) => highlight_count(text) >= *count,
            Check::Sections(mark, count) => mark.find_iter(text).count() >= *count,
            Check::OneOf(options) => options.iter().any(|option| text.contains(option)),
            Check::Json => is_json(text),
            Check::Title => {
                let title = |found: regex::Match| {
                    let inner = found.as_str().trim_start_matches('<').trim_end_matches('>');
                    !strip(inner).is_empty()
                };
                fixed(r"<<[^\n]+>>").find_iter(text).any(title)
            }
            Check::TwoResponses => has_two_responses(text),
            Check::Repeats(prompt) => strip(text).to_lowercase().starts_with(prompt),
            Check::EndsWith(phrase) => strip(text).trim_matches('"').to_lowercase().ends_with(phrase),
            Check::NoComma => !text.contains(','),
            Check::Quoted => {
                let text = strip(text);
                text.len() > 1 && text.starts_with('"') && text.ends_with('"')
            }
            // In the right case, the language decides.
            Check::EnglishCapitals if words::is_upper(text) => return None,
            Check::EnglishSmall if words::is_lower(text) => return None,
            Check::EnglishCapitals | Check::EnglishSmall => false,
            Check::Unknown => return None,
        })
    }
}

/// Without the white space around it, as Python sees it.
pub fn strip(text: &str) -> &str {
    text.trim_matches(words::is_space)
}

fn fixed(pattern: &str) -> Regex {
    Regex::new(pattern).expect("an expression of this file is valid")
}

/// A word of the prompt is an expression to the harness, whatever its case.
fn pattern(word: &str) -> Result<Regex, String> {
    let regex = RegexBuilder::new(word).case_insensitive(true).build();
    regex.map_err(|_| "a keyword is no expression".to_owned())
}

fn patterns(words: Vec<&str>, form: impl Fn(&str) -> String) -> Result<Vec<Regex>, String> {
    words.into_iter().map(|word| pattern(&form(word))).collect()
}

/// The harness draws another letter where this is none.
fn letters(given: &Arguments) -> Result<Check, String> {
    let mut letter = given.text("letter")?.chars().flat_map(char::to_lowercase);
    match (letter.next(), letter.next()) {
        (Some(letter), None) if letter.is_ascii_lowercase() => Ok(Check::Letters(
            letter,
            Bound::new(given, "let_relation", "let_frequency")?,
        )),
        _ => Ok(Check::Unknown),
    }
}

/// The harness draws another place where this is none.
fn first_word(given: &Arguments) -> Result<Check, String> {
    let (paragraph_count, place) = (given.number("num_paragraphs")?, given.number("nth_paragraph")?);
    if place > paragraph_count {
        return Ok(Check::Unknown);
    }
    Ok(Check::FirstWord {
        paragraph_count,
        place,
        word: given.text("first_word")?.to_lowercase(),
    })
}

fn postscript(marker: &str) -> Result<Regex, String> {
    let pattern = match marker {
        "P.P.S" => r"p\.\s?p\.\s?s".to_owned(),
        "P.S." => r"p\.\s?s\.".to_owned(),
        other => other.to_lowercase(),
    };
    // The harness looks in the text in small letters.
    let regex = RegexBuilder::new(&pattern).case_insensitive(true).build();
    regex.map_err(|_| "`postscript_marker` is no expression".to_owned())
}

/// Parts between `***`; none where one in the middle is empty.
fn paragraph_count(text: &str) -> Option<usize> {
    let parts: Vec<&str> = fixed(r"\s?\*\*\*\s?").split(text).collect();
    let last = parts.len() - 1;
    let is_empty = |part: &str| strip(part).is_empty();
    if parts.iter().take(last).skip(1).any(|part| is_empty(part)) {
        return None;
    }
    Some(parts.iter().filter(|part| !is_empty(part)).count())
}

fn has_first_word(text: &str, wanted_count: usize, place: usize, wanted: &str) -> bool {
    let paragraphs: Vec<&str> = text.split("\n\n").collect();
    let count = paragraphs
        .iter()
        .filter(|paragraph| !strip(paragraph).is_empty())
        .count();
    if count != wanted_count || place > count {
        return false;
    }
    let mut said = paragraphs[place - 1]
        .split(words::is_space)
        .filter(|word| !word.is_empty());
    let Some(word) = said.next() else { return false };
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let end = word.find(['.', ',', '?', '!', '\'', '"']).unwrap_or(word.len());
    word[..end].to_lowercase() == wanted
}

fn highlight_count(text: &str) -> usize {
    let is_said = |inner: &str| !strip(inner).is_empty();
    let (single, double) = (fixed(r"\*[^\n\*]*\*"), fixed(r"\*\*[^\n\*]*\*\*"));
    let singles = single
        .find_iter(text)
        .filter(|found| is_said(found.as_str().trim_matches('*')));
    let doubles = double
        .find_iter(text)
        .filter(|found| is_said(&found.as_str()[2..found.as_str().len() - 2]));
    singles.count() + doubles.count()
}

/// JSON, in a code block or not, read no further than whether it is.
fn is_json(text: &str) -> bool {
    let text = strip(text);
    let heads = ["```json", "```Json", "```JSON", "```"];
    let text = heads
        .iter()
        .fold(text, |text, head| text.strip_prefix(head).unwrap_or(text));
    let text = strip(text.strip_suffix("```").unwrap_or(text));
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn has_two_responses(text: &str) -> bool {
    let parts: Vec<&str> = text.split("******").map(strip).collect();
    let last = parts.len() - 1;
    if parts.iter().take(last).skip(1).any(|part| part.is_empty()) {
        return false;
    }
    let said: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
    matches!(said.as_slice(), [one, other] if one != other)
}
