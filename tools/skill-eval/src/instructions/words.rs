//! Words and sentences as the harness counts them, as far as that follows from the text alone.

/// Python's white space: Unicode's, and four separators of ASCII.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Some letter with a case, and none in small.
pub fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

pub fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
}

/// The least and the most sentences that a text can have to the splitter of the harness: one ends at a question or exclamation mark before
/// white space, and may end at any of these marks or a full stop that no letter follows: an abbreviation's, or not.
pub fn sentences(text: &str) -> (usize, usize) {
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    let Some((_, before)) = words.split_last() else {
        return (0, 0);
    };
    let sure = before.iter().filter(|word| word.ends_with(['?', '!'])).count();
    let mut letters = text.trim_matches(is_space).chars().peekable();
    let mut possible = 0;
    while let Some(c) = letters.next() {
        let is_mark = matches!(c, '.' | '?' | '!');
        possible += usize::from(is_mark && letters.peek().is_some_and(|next| !next.is_alphanumeric()));
    }
    (1 + sure, 1 + possible)
}

/// Tokens in capitals. Contractions are two tokens ("DO", "N'T"), and so is CANNOT.
pub fn capital_count(text: &str) -> usize {
    pieces(text)
        .iter()
        .flat_map(|piece| contracted(piece))
        .filter(|token| is_upper(token))
        .count()
}

/// Marks that are tokens of their own.
const MARKS: &str = "«“‘„»”’`\"?!;@#$%&*[](){}<>\u{2012}\u{2013}\u{2014}\u{2015}";

/// What white space and marks leave: words, with apostrophes and single full stops in them.
fn pieces(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let is_break = |index: usize| {
        let (c, next) = (letters[index], letters.get(index + 1).copied());
        let is_beside = |same: char| next == Some(same) || (index > 0 && letters[index - 1] == same);
        match c {
            '-' | '.' | '\'' => is_beside(c),
            ':' | ',' => !next.is_some_and(|next| next.is_numeric()),
            _ => is_space(c) || MARKS.contains(c),
        }
    };
    let mut pieces = vec![String::new()];
    for (index, c) in letters.iter().enumerate() {
        match is_break(index) {
            true => pieces.push(String::new()),
            false => pieces.last_mut().expect("never empty").push(*c),
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Endings that come off a word.
const CLITICS: [&str; 7] = ["'S", "'M", "'D", "'LL", "'RE", "'VE", "N'T"];
/// Words that are two.
const PAIRS: [&str; 7] = ["CAN|NOT", "D|'YE", "GIM|ME", "GON|NA", "GOT|TA", "LEM|ME", "WAN|NA"];
const OPENINGS: [&str; 2] = ["'T|IS", "'T|WAS"];

fn contracted(piece: &str) -> Vec<&str> {
    let word = piece.strip_suffix('.').unwrap_or(piece);
    let word = word.strip_suffix('\'').unwrap_or(word);
    let is_pair = |pair: &&&str| pair.replace('|', "") == word;
    if let Some(pair) = PAIRS.iter().chain(&OPENINGS).find(is_pair) {
        let middle = pair.find('|').unwrap_or(0);
        return vec![&word[..middle], &word[middle..]];
    }
    let clitic = CLITICS
        .iter()
        .find(|clitic| word.ends_with(**clitic) && word.len() > clitic.len());
    match clitic {
        Some(clitic) => vec![&word[..word.len() - clitic.len()], clitic],
        None => vec![word],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_stop_may_end_a_sentence_and_a_question_does() {
        assert_eq!(sentences("One. Two! Three? Four."), (3, 4));
        assert_eq!(sentences("Mr. X went to \"Rome.\" He slept."), (1, 3));
        assert_eq!(sentences("3.5 is a number"), (1, 1));
        assert_eq!(sentences("  "), (0, 0));
    }

    #[test]
    fn capital_words_are_counted_in_tokens() {
        for (text, count) in [
            ("I AM here", 2),
            ("DON'T SHOUT", 3),
            ("CANNOT", 2),
            ("JOHN'S dog's U.S.A. x-RAY A-B", 4),
            ("A,B A,1 STOP!GO 'TWAS", 7),
            ("abc 123", 0),
        ] {
            assert_eq!(capital_count(text), count, "{text}");
        }
    }
}
