//! The built-in judge's grammar: reads `data/flowlens.grammar`.
//!
//! A word is reduced to a *symbol* (words that no rule tells apart share one), so a sentence is a short row of symbols and every rule is a
//! regular expression over it (`automata.rs`). This file knows nothing about what the roles mean; `flowlens.rs` does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::automata::{self, Automata, GrammarError, Matcher, Part, Roles, Symbol};
use super::packed::{WORD_BYTES_MAX, pack};

/// Symbols that are not words of the grammar. Words start at [`FIRST_WORD`].
pub const WORD: Symbol = Symbol(0);
pub const COMMA: Symbol = Symbol(1);
pub const MARK: Symbol = Symbol(2);
pub const NUMBER: Symbol = Symbol(3);
pub const QUOTED: Symbol = Symbol(4);
const FIRST_WORD: usize = 5;
const WORD_COUNT_MAX: usize = 1 << 15;

/// The language that a function word speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Any,
    English,
    Foreign,
}

pub struct Grammar {
    words: WordTable,
    automata: Automata,
    /// The index of a role is that of its bit.
    role_names: Vec<String>,
}

impl Grammar {
    pub fn parse(source: &str) -> Result<Grammar, GrammarError> {
        let file = SourceFile::read(source)?;
        let symbols = Symbols::assign(&file)?;
        let mut role_names: Vec<String> = Vec::new();
        let mut rules = Vec::new();
        for rule in &file.roles {
            let index = role_names
                .iter()
                .position(|name| *name == rule.name)
                .unwrap_or_else(|| {
                    role_names.push(rule.name.clone());
                    role_names.len() - 1
                });
            if index >= Roles::BITS as usize {
                return Err(rule.error("more than 64 roles"));
            }
            let mut body = Vec::new();
            symbols.resolve(&file, &rule.body, rule, 0, &mut body)?;
            rules.push(automata::Rule {
                role: 1 << index,
                body,
                line: rule.line,
            });
        }
        Ok(Grammar {
            words: symbols.table,
            automata: automata::compile(&rules, symbols.count)?,
            role_names,
        })
    }

    /// The bit of a role; a role that no rule bears is a mistake in the grammar file.
    pub fn role(&self, name: &str) -> Result<Roles, GrammarError> {
        match self.role_names.iter().position(|known| known == name) {
            Some(index) => Ok(1 << index),
            None => Err(GrammarError {
                line: 0,
                cause: format!("no rule for the role {name}"),
            }),
        }
    }

    /// What a word stands for. ASCII letters may be of any case, others are lower-case.
    pub fn look_up(&self, word: &[u8]) -> Found {
        match word.len() {
            1..=WORD_BYTES_MAX => self.words.get(pack(word)),
            _ => UNKNOWN,
        }
    }

    /// The same of a word from [`super::packed::leading_letters`].
    pub fn look_up_packed(&self, word: u128) -> Found {
        self.words.get(word)
    }

    pub fn matcher(&self) -> Matcher<'_> {
        Matcher::new(&self.automata)
    }
}

/// A word's symbol, and the language it speaks for; of two words written as one, those of the second too.
#[derive(Clone, Copy)]
pub struct Found {
    pub symbol: Symbol,
    pub language: Language,
    pub second: Option<(Symbol, Language)>,
}

const UNKNOWN: Found = Found {
    symbol: WORD,
    language: Language::Any,
    second: None,
};

/// Contractions written without their apostrophe, and `cannot`.
const JOINED: [(&str, &str, &str); 14] = [
    ("cannot", "can", "not"),
    ("cant", "can", "not"),
    ("dont", "do", "not"),
    ("doesnt", "does", "not"),
    ("didnt", "did", "not"),
    ("isnt", "is", "not"),
    ("arent", "are", "not"),
    ("wouldnt", "would", "not"),
    ("couldnt", "could", "not"),
    ("shouldnt", "should", "not"),
    ("im", "i", "am"),
    ("ive", "i", "have"),
    ("thats", "that", "is"),
    ("wont", "will", "not"),
];

/// A small open-addressing table: words are looked up once per word of every answer, so this is the judge's inner loop. Most words of an
/// answer are not in it, and the places say so alone: they are few bytes, which stay in cache.
struct WordTable {
    /// One more than an index into `words`, or zero.
    places: Vec<u16>,
    words: Vec<(u128, Found)>,
}

impl WordTable {
    fn new(words: &BTreeMap<String, Symbol>, language_of: &BTreeMap<String, Language>) -> WordTable {
        let mut table = WordTable {
            // Three of four are free.
            places: vec![0; ((words.len() + JOINED.len()) * 4).next_power_of_two()],
            words: Vec::new(),
        };
        // Of two entries of one word the first is found.
        for (joined, first, second) in JOINED {
            let found = |word: &str| match words.get(word) {
                Some(symbol) => (*symbol, language_of[word]),
                None => (UNKNOWN.symbol, UNKNOWN.language),
            };
            let (symbol, language) = found(first);
            let second = Some(found(second));
            table.add(
                joined,
                Found {
                    symbol,
                    language,
                    second,
                },
            );
        }
        for (word, &symbol) in words {
            let language = language_of[word];
            table.add(
                word,
                Found {
                    symbol,
                    language,
                    second: None,
                },
            );
        }
        table
    }

    fn add(&mut self, word: &str, found: Found) {
        let key = pack(word.as_bytes());
        let mask = self.places.len() - 1;
        let mut place = hash(key) & mask;
        while self.places[place] != 0 {
            place = (place + 1) & mask;
        }
        self.words.push((key, found));
        self.places[place] = u16::try_from(self.words.len()).expect("no more words than WORD_COUNT_MAX");
    }

    fn get(&self, key: u128) -> Found {
        let mask = self.places.len() - 1;
        let mut place = hash(key) & mask;
        while let Some(index) = usize::from(self.places[place]).checked_sub(1) {
            let (known, found) = self.words[index];
            if known == key {
                return found;
            }
            place = (place + 1) & mask;
        }
        UNKNOWN
    }
}

fn hash(key: u128) -> usize {
    let folded = (key as u64) ^ ((key >> 64) as u64).rotate_left(29);
    (folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize
}

struct Rule {
    line: usize,
    name: String,
    body: Vec<Term>,
}

impl Rule {
    fn error(&self, cause: impl Into<String>) -> GrammarError {
        GrammarError {
            line: self.line,
            cause: cause.into(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Word(String),
    Class(String),
    Macro(String),
    Gap(u32),
    Any,
    Comma,
    Mark,
    Quoted,
    Number,
    /// an operator of the regular expression, as is
    Operator(char),
}

/// The language of a word that is in these classes.
fn language(classes: &[String]) -> Language {
    let is_in = |class: &str| classes.iter().any(|name| name == class);
    match (is_in("ENGLISH"), is_in("FOREIGN")) {
        (true, _) => Language::English,
        (false, true) => Language::Foreign,
        (false, false) => Language::Any,
    }
}

#[derive(Default)]
struct SourceFile {
    classes: BTreeMap<String, BTreeSet<String>>,
    macros: HashMap<String, Rule>,
    roles: Vec<Rule>,
}

impl SourceFile {
    fn read(source: &str) -> Result<SourceFile, GrammarError> {
        let mut file = SourceFile::default();
        let mut logical: Vec<(usize, String)> = Vec::new();
        for (index, raw) in source.lines().enumerate() {
            let text = raw.split('#').next().unwrap_or_default();
            if text.trim().is_empty() {
                continue;
            }
            match logical.last_mut() {
                Some((_, previous)) if text.starts_with([' ', '\t']) => {
                    previous.push(' ');
                    previous.push_str(text.trim());
                }
                _ => logical.push((index + 1, text.trim().to_string())),
            }
        }
        for (line, text) in logical {
            let fail = |cause: String| GrammarError { line, cause };
            let (head, body) = text.split_once('=').ok_or_else(|| fail("expected NAME = …".into()))?;
            let (kind, name) = head
                .trim()
                .split_once(' ')
                .map(|(kind, name)| (kind, name.trim().to_string()))
                .ok_or_else(|| fail("expected `class`, `let` or `role`, then a name".into()))?;
            match kind {
                "class" => {
                    let mut words = BTreeSet::new();
                    for word in body.split_whitespace() {
                        if let Some(class) = word.strip_prefix('@') {
                            let other = file
                                .classes
                                .get(class)
                                .ok_or_else(|| fail(format!("no class {class} above")))?;
                            words.extend(other.iter().cloned());
                        } else {
                            words.extend(inflect(word));
                        }
                    }
                    if let Some(long) = words.iter().find(|word| word.len() > WORD_BYTES_MAX) {
                        return Err(fail(format!("the word {long} is longer than {WORD_BYTES_MAX} bytes")));
                    }
                    file.classes.entry(name).or_default().extend(words);
                }
                "let" => {
                    let rule = Rule {
                        line,
                        name: name.clone(),
                        body: terms(body).map_err(fail)?,
                    };
                    if file.macros.insert(name.clone(), rule).is_some() {
                        return Err(GrammarError {
                            line,
                            cause: format!("{name} is defined twice"),
                        });
                    }
                }
                "role" => file.roles.push(Rule {
                    line,
                    name,
                    body: terms(body).map_err(fail)?,
                }),
                other => return Err(fail(format!("unknown kind {other}"))),
            }
        }
        Ok(file)
    }
}

/// `provide+` stands for provide, provides, provided and providing.
fn inflect(word: &str) -> Vec<String> {
    let Some(base) = word.strip_suffix('+') else {
        return vec![word.to_string()];
    };
    let stem = base.strip_suffix('e').unwrap_or(base);
    let third = if base.ends_with(['s', 'x', 'z']) || base.ends_with("ch") || base.ends_with("sh") {
        format!("{base}es")
    } else if let Some(root) = base
        .strip_suffix('y')
        .filter(|root| !root.ends_with(['a', 'e', 'o', 'u']))
    {
        return vec![
            base.to_string(),
            format!("{root}ies"),
            format!("{root}ied"),
            format!("{base}ing"),
        ];
    } else {
        format!("{base}s")
    };
    vec![base.to_string(), third, format!("{stem}ed"), format!("{stem}ing")]
}

fn terms(body: &str) -> Result<Vec<Term>, String> {
    let mut out = Vec::new();
    let mut rest = body.trim_start();
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        match first {
            '(' | ')' | '|' | '?' | '*' | '+' | '^' | '$' => out.push(Term::Operator(first)),
            ',' => out.push(Term::Comma),
            ';' => out.push(Term::Mark),
            '"' => out.push(Term::Quoted),
            '_' => out.push(Term::Any),
            '~' => {
                let digits: String = rest[1..].chars().take_while(char::is_ascii_digit).collect();
                out.push(Term::Gap(digits.parse().map_err(|_| "~ wants a number".to_string())?));
                length += digits.len();
            }
            '{' => {
                let end = rest.find('}').ok_or("unclosed {")?;
                out.push(Term::Macro(rest[1..end].to_string()));
                length = end + 1;
            }
            letter if letter.is_ascii_alphabetic() => {
                let name: String = rest
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                    .collect();
                length = name.len();
                out.push(match name.as_str() {
                    "NUMBER" => Term::Number,
                    _ if letter.is_ascii_uppercase() => Term::Class(name),
                    _ if name.len() > WORD_BYTES_MAX => {
                        return Err(format!("the word {name} is longer than {WORD_BYTES_MAX} bytes"));
                    }
                    _ => Term::Word(name),
                });
            }
            other => return Err(format!("unexpected character {other:?}")),
        }
        rest = rest[length..].trim_start();
    }
    Ok(out)
}

struct Symbols {
    table: WordTable,
    of_word: BTreeMap<String, Symbol>,
    count: usize,
}

impl Symbols {
    /// Gives one symbol to each set of words that every rule treats alike.
    fn assign(file: &SourceFile) -> Result<Symbols, GrammarError> {
        let mut literal = BTreeSet::new();
        let mut used_classes = BTreeSet::new();
        for rule in file.roles.iter().chain(file.macros.values()) {
            for term in &rule.body {
                match term {
                    Term::Word(word) => {
                        literal.insert(word.clone());
                    }
                    Term::Class(class) => {
                        if !file.classes.contains_key(class) {
                            return Err(rule.error(format!("no class {class}")));
                        }
                        used_classes.insert(class.clone());
                    }
                    _ => {}
                }
            }
        }
        let mut signature: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for class in &used_classes {
            for word in &file.classes[class] {
                signature.entry(word.clone()).or_default().push(class.clone());
            }
        }
        for (class, words) in ["ENGLISH", "FOREIGN"]
            .iter()
            .filter_map(|class| Some((class, file.classes.get(*class)?)))
        {
            for word in words {
                signature.entry(word.clone()).or_default().push((*class).to_string());
            }
        }
        for word in literal {
            signature.entry(word.clone()).or_default().push(format!("={word}"));
        }
        if signature.len() > WORD_COUNT_MAX {
            return Err(GrammarError {
                line: 0,
                cause: format!("more than {WORD_COUNT_MAX} words"),
            });
        }
        let mut symbol_of_signature: BTreeMap<Vec<String>, Symbol> = BTreeMap::new();
        let mut of_word = BTreeMap::new();
        let mut language_of = BTreeMap::new();
        // The most frequent words come first: what an automaton does on them then lies side by side, and stays in cache.
        let mut words: Vec<(String, Vec<String>)> = signature.into_iter().collect();
        words.sort_by_key(|(_, key)| language(key) != Language::English);
        for (word, key) in words {
            let next = symbol_of_signature.len() + FIRST_WORD;
            language_of.insert(word.clone(), language(&key));
            of_word.insert(word, *symbol_of_signature.entry(key).or_insert(Symbol(next as u16)));
        }
        Ok(Symbols {
            table: WordTable::new(&of_word, &language_of),
            count: FIRST_WORD + symbol_of_signature.len(),
            of_word,
        })
    }

    /// Puts definitions in the place of their names, and symbols in the place of words.
    fn resolve(
        &self,
        file: &SourceFile,
        body: &[Term],
        rule: &Rule,
        depth: usize,
        out: &mut Vec<Part>,
    ) -> Result<(), GrammarError> {
        if depth > 16 {
            return Err(rule.error("definitions refer to each other in a circle"));
        }
        let one = |symbol: Symbol| Part::Of([symbol].into());
        for term in body {
            let part = match term {
                Term::Word(word) => one(self.of_word[word]),
                Term::Class(class) => Part::Of(file.classes[class].iter().map(|word| self.of_word[word]).collect()),
                Term::Macro(name) => {
                    let inner = file
                        .macros
                        .get(name)
                        .ok_or_else(|| rule.error(format!("no definition of {name}")))?;
                    out.push(Part::Operator('('));
                    self.resolve(file, &inner.body, rule, depth + 1, out)?;
                    Part::Operator(')')
                }
                Term::Gap(most) => Part::Any { least: 0, most: *most },
                Term::Any => Part::Any { least: 1, most: 1 },
                Term::Comma => one(COMMA),
                Term::Mark => one(MARK),
                Term::Number => one(NUMBER),
                Term::Quoted => one(QUOTED),
                Term::Operator(operator) => Part::Operator(*operator),
            };
            out.push(part);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_words_written_as_one_are_two_symbols() {
        let grammar = Grammar::parse("role refuse = i can not help").unwrap();
        let symbol = |word: &str| grammar.look_up(word.as_bytes()).symbol;
        for word in ["cannot", "Cant"] {
            let found = grammar.look_up(word.as_bytes());
            assert_eq!(
                (found.symbol, found.second.map(|(symbol, _)| symbol)),
                (symbol("can"), Some(symbol("not")))
            );
        }
        assert!(grammar.look_up(b"can").second.is_none());
        assert_eq!(symbol("kettle"), WORD);
    }
}
