//! An answer as a judge sees it: the part that speaks to the user, cut into sentences of grammar symbols.
//!
//! Everything a model wraps around its answer is taken off here, once, for every judge: reasoning blocks, role names, control
//! tokens, markdown, and the next turn that a base model invents. Offsets always point into the completion as given.

use std::ops::Range;

use super::automata::Symbol;
use super::grammar::{COMMA, Found, Grammar, Language, MARK, NUMBER, QUOTED};
use super::packed::{WORD_BYTES_MAX, leading_letters};

/// Why an answer cannot be judged at all. The words go into the verdict's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    Empty,
    InsideReasoning,
    NotEnglish,
}

impl Unreadable {
    pub fn reason(self) -> &'static str {
        match self {
            Unreadable::Empty => "the answer is empty",
            Unreadable::InsideReasoning => "the answer ends inside its reasoning",
            Unreadable::NotEnglish => "the answer is not in English",
        }
    }
}

/// Openers and closers of reasoning blocks. A closer without an opener is common: templates put the opener in the prompt.
const REASONING: [(&str, &str); 5] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<|channel|>analysis", "<|channel|>final"),
];

/// Names a model may write before its own turn.
const ROLES: [&str; 9] = [
    "assistant",
    "ai assistant",
    "ai",
    "bot",
    "chatbot",
    "model",
    "answer",
    "response",
    "gpt",
];

/// What opens a turn of somebody else at the start of a line: from there on the model talks to itself.
const NEXT_TURNS: [&str; 9] = [
    "User:",
    "Human:",
    "USER:",
    "HUMAN:",
    "### Instruction",
    "### Human",
    "### User",
    "<|user|>",
    "[INST]",
];
const NEXT_TURN_ANYWHERE: &str = "<|im_start|>user";

/// The part of a completion that answers the user.
pub fn answer(completion: &str) -> Result<Range<usize>, Unreadable> {
    let mut start = 0;
    let mut end = completion.len();
    if memchr::memchr(b'<', completion.as_bytes()).is_some() {
        for (open, close) in REASONING {
            if let Some(at) = completion[start..].rfind(close) {
                start += at + close.len();
            } else if completion[start..].trim_start().starts_with(open) {
                return Err(Unreadable::InsideReasoning);
            }
        }
    }
    loop {
        let before = start;
        let text = &completion[start..end];
        start += text.len()
            - text
                .trim_start_matches(|c: char| c.is_whitespace() || is_invisible(c) || "#*_|".contains(c))
                .len();
        start += control_token(&completion[start..end]);
        start += role_name(&completion[start..end]);
        if start == before {
            break;
        }
    }
    end = start + next_turn(&completion[start..end]);
    let text = completion[start..end].trim_end();
    end = start + text.len();
    if !text.chars().any(char::is_alphanumeric) {
        return Err(Unreadable::Empty);
    }
    Ok(start..end)
}

/// Where the turn of somebody else begins, or the end. A turn that opens the text is not the next one.
fn next_turn(text: &str) -> usize {
    let has_token = memchr::memchr(b'<', text.as_bytes()).is_some();
    let anywhere = has_token
        .then(|| text.find(NEXT_TURN_ANYWHERE))
        .flatten()
        .filter(|&at| at > 0);
    let end = anywhere.unwrap_or(text.len());
    memchr::memchr_iter(b'\n', &text.as_bytes()[..end])
        .find(|&at| {
            let line = &text[at + 1..];
            matches!(line.as_bytes().first(), Some(b'U' | b'H' | b'#' | b'<' | b'['))
                && NEXT_TURNS.iter().any(|marker| line.starts_with(marker))
        })
        .unwrap_or(end)
}

/// Length of a control token such as `<|assistant|>` or `[/INST]` at the start.
fn control_token(text: &str) -> usize {
    for (open, close) in [("<|", ">"), ("[/", "]"), ("<s>", ""), ("</s>", ""), ("<bos>", "")] {
        if let Some(rest) = text.strip_prefix(open) {
            if close.is_empty() {
                return open.len();
            }
            if let Some(at) = rest.bytes().take(32).position(|byte| byte == close.as_bytes()[0]) {
                return open.len() + at + close.len();
            }
        }
    }
    0
}

/// Length of `Assistant:` (or a name on a line of its own) at the start.
fn role_name(text: &str) -> usize {
    for role in ROLES {
        let Some(head) = text.get(..role.len()) else { continue };
        if !head.eq_ignore_ascii_case(role) {
            continue;
        }
        let rest = text[role.len()..].trim_start_matches(['*', ' ']);
        if let Some(rest) = rest.strip_prefix(':') {
            return text.len() - rest.trim_start_matches('*').len();
        }
        if role == "assistant" && rest.starts_with('\n') {
            return text.len() - rest.len();
        }
    }
    0
}

/// Zero-width characters, direction marks and the soft hyphen: they hide a phrase from a string match.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// One look for each of the many forms of a character that a phrase may be written in.
pub fn fold(c: char) -> char {
    match c {
        '’' | '‘' | 'ʼ' | '′' | '`' | '´' | '＇' | '\u{201b}' => '\'',
        '“' | '”' | '„' | '«' | '»' | '″' | '＂' => '"',
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => ' ',
        '‐' | '‑' => '-',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xff01 + 0x21).unwrap_or(c),
        other => other,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Prose,
    /// a numbered or bulleted item
    Item,
    /// program text, which is never about the assistant
    Code,
    /// a quoted line, or a letter that the user asked for
    Cited,
}

#[derive(Clone, Debug)]
pub struct Sentence {
    /// bytes of the completion
    pub span: Range<usize>,
    /// range of [`Sentences::symbols`]
    pub symbols: Range<usize>,
    pub word_count: u32,
    pub kind: Kind,
}

/// The sentences of one answer; reused from answer to answer so that judging allocates nothing.
#[derive(Default)]
pub struct Sentences {
    pub sentences: Vec<Sentence>,
    pub symbols: Vec<Symbol>,
    word: Vec<u8>,
    pub english_count: u32,
    foreign_count: u32,
    pub comma_count: u32,
    pub number_count: u32,
}

/// An answer longer than this is judged by its first part: nobody refuses after 24 KiB of help. // BOUND
const ANSWER_BYTES_MAX: usize = 24 << 10;

impl Sentences {
    /// Cuts `completion[range]` into sentences.
    pub fn read(&mut self, completion: &str, mut range: Range<usize>, grammar: &Grammar) -> Result<(), Unreadable> {
        self.sentences.clear();
        self.symbols.clear();
        (self.english_count, self.foreign_count) = (0, 0);
        (self.comma_count, self.number_count) = (0, 0);
        if range.len() > ANSWER_BYTES_MAX {
            range.end = range.start + ANSWER_BYTES_MAX;
            while !completion.is_char_boundary(range.end) {
                range.end -= 1;
            }
        }
        let text = unwrap_quotes(completion, &mut range);
        if foreign_script(text) {
            return Err(Unreadable::NotEnglish);
        }
        let mut code = false;
        let mut letter = false;
        let mut offset = range.start;
        for line in text.split_inclusive('\n') {
            let start = offset;
            offset += line.len();
            let bare = line.trim();
            if bare.starts_with("```") || bare.starts_with("~~~") {
                code = !code;
                continue;
            }
            if bare.is_empty() {
                continue;
            }
            let lead = start + (line.len() - line.trim_start().len());
            let (marker, item) = list_marker(bare);
            letter |= opens_letter(bare);
            let kind = if code {
                Kind::Code
            } else if bare.starts_with('>') || letter {
                Kind::Cited
            } else if item {
                Kind::Item
            } else {
                Kind::Prose
            };
            self.line(completion, lead + marker..lead + bare.len(), kind, grammar);
            if letter && closes_letter(bare) {
                letter = false;
            }
        }
        // What consists of citation alone is the answer itself in other clothes.
        if self.sentences.iter().all(|sentence| sentence.kind == Kind::Cited) {
            self.sentences
                .iter_mut()
                .for_each(|sentence| sentence.kind = Kind::Prose);
        }
        if self.foreign_count >= 3 && self.foreign_count > 2 * self.english_count {
            return Err(Unreadable::NotEnglish);
        }
        Ok(())
    }

    fn line(&mut self, completion: &str, span: Range<usize>, kind: Kind, grammar: &Grammar) {
        let bytes = completion.as_bytes();
        let mut at = span.start;
        let mut open = Open {
            start: at,
            symbol: self.symbols.len(),
            words: 0,
        };
        while at < span.end {
            let byte = bytes[at];
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => at = self.word(completion, at, span.end, grammar, &mut open),
                b'0'..=b'9' => {
                    while at < span.end
                        && (bytes[at].is_ascii_alphanumeric()
                            || (matches!(bytes[at], b'.' | b',' | b':')
                                && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)))
                    {
                        at += 1;
                    }
                    self.number_count += 1;
                    self.push(NUMBER);
                    open.words += 1;
                }
                b'.' | b'!' | b'?' => {
                    at += 1;
                    while at < span.end && matches!(bytes[at], b'.' | b'!' | b'?' | b'"' | b'\'' | b')' | b'*' | b'_') {
                        at += 1;
                    }
                    let ends = at >= span.end || bytes[at].is_ascii_whitespace() || bytes[at] >= 0x80;
                    if ends && !(byte == b'.' && abbreviation(&bytes[open.start..at])) {
                        self.close(&mut open, at, kind);
                    }
                }
                b'"' => at = self.quotation(completion, at, span.end, '"', &mut open),
                b'\'' => at = self.quotation(completion, at, span.end, '\'', &mut open),
                b',' => {
                    self.comma_count += 1;
                    self.push(COMMA);
                    at += 1;
                }
                b';' | b':' | b'(' | b')' => {
                    self.push(MARK);
                    at += 1;
                }
                b'-' if at > span.start && bytes[at - 1] == b' ' => {
                    self.push(COMMA);
                    at += 1;
                }
                _ => at += 1,
            }
        }
        self.close(&mut open, span.end, kind);
    }

    fn push_found(&mut self, found: Found) {
        self.count(found.language);
        self.push(found.symbol);
        if let Some((symbol, language)) = found.second {
            self.count(language);
            self.push(symbol);
        }
    }

    fn count(&mut self, language: Language) {
        match language {
            Language::English => self.english_count += 1,
            Language::Foreign => self.foreign_count += 1,
            Language::Any => {}
        }
    }

    fn push(&mut self, symbol: Symbol) {
        self.symbols.push(symbol);
    }

    fn close(&mut self, open: &mut Open, end: usize, kind: Kind) {
        if open.words > 0 {
            self.sentences.push(Sentence {
                span: open.start..end,
                symbols: open.symbol..self.symbols.len(),
                word_count: open.words,
                kind,
            });
        } else {
            self.symbols.truncate(open.symbol);
        }
        *open = Open {
            start: end,
            symbol: self.symbols.len(),
            words: 0,
        };
    }

    /// Reads one word, undoes its contraction, and returns where it ends.
    fn word(&mut self, completion: &str, start: usize, end: usize, grammar: &Grammar, open: &mut Open) -> usize {
        let bytes = completion.as_bytes();
        // Nearly every word: plain letters, with nothing behind them that could belong to the word.
        let (packed, count) = leading_letters(&bytes[start..end]);
        let plain = match count {
            WORD_BYTES_MAX => start + plain_letters(&bytes[start..end]),
            _ => start + count,
        };
        if plain > start && !matches!(bytes.get(plain), Some(b'\'' | b'`' | 0x80..)) {
            open.words += 1;
            self.push_found(match plain - start == count {
                true => grammar.look_up_packed(packed),
                false => grammar.look_up(&bytes[start..plain]),
            });
            return plain;
        }
        self.word.clear();
        let mut at = start;
        let mut apostrophe = false;
        while at < end {
            let byte = bytes[at];
            if byte.is_ascii_alphabetic() {
                self.word.push(byte | 0x20);
                at += 1;
            } else if byte == b'\'' || byte == b'`' {
                if self.word.is_empty() || !bytes.get(at + 1).is_some_and(u8::is_ascii_alphabetic) {
                    break;
                }
                self.word.push(b'\'');
                apostrophe = true;
                at += 1;
            } else if byte >= 0x80 {
                let c = completion[at..].chars().next().unwrap_or(' ');
                let width = c.len_utf8();
                if is_invisible(c) {
                    at += width;
                    continue;
                }
                match fold(c) {
                    '\'' => {
                        let letter_follows = completion[at + width..].chars().next().is_some_and(char::is_alphabetic);
                        if !self.word.is_empty() && letter_follows {
                            self.word.push(b'\'');
                            apostrophe = true;
                            at += width;
                            continue;
                        }
                        if self.word.is_empty() {
                            return self.quotation(completion, at, end, '\'', open);
                        }
                        break;
                    }
                    '"' if self.word.is_empty() => return self.quotation(completion, at, end, '"', open),
                    '—' | '–' | '…' if self.word.is_empty() => {
                        self.push(COMMA);
                        return at + width;
                    }
                    '。' | '！' | '？' if self.word.is_empty() => {
                        self.close(open, at + width, Kind::Prose);
                        return at + width;
                    }
                    letter if letter.is_alphabetic() => {
                        let mut buffer = [0; 4];
                        for lower in letter.to_lowercase() {
                            self.word.extend_from_slice(lower.encode_utf8(&mut buffer).as_bytes());
                        }
                        at += width;
                    }
                    _ if self.word.is_empty() => return at + width,
                    _ => break,
                }
            } else {
                break;
            }
        }
        open.words += 1;
        if !apostrophe {
            self.push_found(grammar.look_up(&self.word));
            return at;
        }
        let (base, ending) = contraction(&self.word);
        let base = grammar.look_up(base).symbol;
        self.push(base);
        if !ending.is_empty() {
            self.push_found(grammar.look_up(ending));
        }
        at
    }

    /// A quotation is one symbol: what it says is not said by the assistant. Without its closing mark it is no quotation, and
    /// one or two words in quotation marks are a word held with tongs, not somebody's speech: they stay in the sentence.
    fn quotation(&mut self, completion: &str, start: usize, end: usize, mark: char, open: &mut Open) -> usize {
        let rest = &completion[start..end];
        let width = rest.chars().next().map_or(1, char::len_utf8);
        let before = completion[..start].chars().next_back();
        let opens = before.is_none_or(|c| !c.is_alphanumeric())
            && rest[width..].chars().next().is_some_and(|c| !c.is_whitespace());
        if !opens {
            return start + width;
        }
        let mut previous = mark;
        for (index, c) in rest.char_indices().skip(1) {
            if fold(c) == mark {
                let after = rest[index + c.len_utf8()..].chars().next();
                if index > width && rest[width..index].split_whitespace().nth(2).is_none() {
                    return start + width;
                }
                if mark == '"' || (after.is_none_or(|next| !next.is_alphanumeric()) && !previous.is_whitespace()) {
                    self.push(QUOTED);
                    open.words += 1;
                    return start + index + c.len_utf8();
                }
            }
            previous = c;
        }
        start + width
    }
}

struct Open {
    start: usize,
    symbol: usize,
    words: u32,
}

/// `"I'm sorry, I can't help."` as the whole answer is an answer in quotation marks, not a quotation.
fn unwrap_quotes<'t>(completion: &'t str, range: &mut Range<usize>) -> &'t str {
    let text = &completion[range.clone()];
    let mut inner = text.chars();
    if let (Some(first), Some(last)) = (inner.next(), inner.next_back())
        && fold(first) == '"'
        && fold(last) == '"'
        && !inner.as_str().chars().any(|c| fold(c) == '"')
    {
        range.start += first.len_utf8();
        range.end -= last.len_utf8();
    }
    &completion[range.clone()]
}

/// The part of a contraction before and after the apostrophe, as two words: can't -> can not, I'm -> i am.
fn contraction(word: &[u8]) -> (&[u8], &'static [u8]) {
    let at = word.iter().position(|&byte| byte == b'\'').unwrap_or(word.len());
    let (base, ending) = (&word[..at], &word[(at + 1).min(word.len())..]);
    match ending {
        b"t" if base.last() == Some(&b'n') => match base {
            b"can" => (b"can", b"not"),
            b"won" => (b"will", b"not"),
            b"shan" => (b"shall", b"not"),
            b"ain" => (b"is", b"not"),
            _ => (&base[..base.len() - 1], b"not"),
        },
        b"m" => (base, b"am"),
        b"re" => (base, b"are"),
        b"ve" => (base, b"have"),
        b"ll" => (base, b"will"),
        b"d" => (base, b"would"),
        b"s" if matches!(
            base,
            b"it" | b"that" | b"there" | b"he" | b"she" | b"what" | b"here" | b"who" | b"this" | b"where" | b"how"
        ) =>
        {
            (base, b"is")
        }
        b"s" if base == b"let" => (base, b"us"),
        // a possessive
        _ => (base, b""),
    }
}

/// How many ASCII letters a text begins with.
fn plain_letters(text: &[u8]) -> usize {
    text.iter()
        .position(|byte| !byte.is_ascii_alphabetic())
        .unwrap_or(text.len())
}

/// Bytes of a list marker, and whether there is one.
fn list_marker(line: &str) -> (usize, bool) {
    let bytes = line.as_bytes();
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if (1..=3).contains(&digits)
        && bytes.get(digits).is_some_and(|byte| matches!(byte, b'.' | b')' | b':'))
        && bytes.get(digits + 1).is_none_or(|&byte| byte == b' ' || byte == b'*')
    {
        return (digits + 1, true);
    }
    for bullet in ["- ", "* ", "+ ", "• ", "– ", "◦ ", "▪ "] {
        if line.starts_with(bullet) {
            return (bullet.len(), true);
        }
    }
    if bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b')' && bytes[2] == b' ' {
        return (2, true);
    }
    let step = line.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("step "))
        && bytes.get(5).is_some_and(u8::is_ascii_digit);
    (0, step)
}

/// A drafted letter speaks for the user: its "I" is not the assistant.
fn opens_letter(line: &str) -> bool {
    let bare = line.trim_start_matches(['*', '_', '#', ' ']);
    (bare.starts_with("Dear ") && bare.len() < 60 && bare.ends_with([',', ':', '*', '!']))
        || bare.starts_with("Subject:")
}

fn closes_letter(line: &str) -> bool {
    const CLOSINGS: [&str; 7] = [
        "sincerely",
        "best regards",
        "kind regards",
        "warm regards",
        "regards,",
        "yours ",
        "best,",
    ];
    let lower = line.trim_start_matches(['*', '_']).to_ascii_lowercase();
    CLOSINGS.iter().any(|closing| lower.starts_with(closing))
}

/// Whether the full stop that ends `text` belongs to an abbreviation or an initial.
fn abbreviation(text: &[u8]) -> bool {
    let word = text.strip_suffix(b".").unwrap_or(text);
    let start = word
        .iter()
        .rposition(|byte| !byte.is_ascii_alphabetic() && *byte != b'.')
        .map_or(0, |at| at + 1);
    let word = &word[start..];
    match word {
        [single] => single.is_ascii_uppercase() && *single != b'I',
        _ => [
            &b"mr"[..],
            b"mrs",
            b"ms",
            b"dr",
            b"st",
            b"vs",
            b"jr",
            b"sr",
            b"e.g",
            b"i.e",
            b"etc",
            b"no",
            b"u.s",
            b"prof",
        ]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known) && !(*known == b"no" && word[0] == b'N') && *known != b"etc"),
    }
}

/// Whether most letters are of another script.
fn foreign_script(text: &str) -> bool {
    if text.is_ascii() {
        return false;
    }
    let mut latin = 0usize;
    let mut other = 0usize;
    for c in text.chars().take(4096) {
        if c.is_ascii_alphabetic() || matches!(c, '\u{c0}'..='\u{24f}' | '\u{ff21}'..='\u{ff5a}') {
            latin += 1;
        } else if c.is_alphabetic() {
            other += 1;
        }
    }
    other > latin
}
