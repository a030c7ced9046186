//! Rules as automata: each is a regular expression over the symbols of a sentence, and all run side by side, in time linear in the
//! sentence, so that no answer can make the judge slow.
//!
//! An automaton reads a byte for each symbol: symbols that none of its rules tells apart share one. It holds as many rules as 256 bytes
//! can serve. Its states, made as they are met, are the sets of rules under way at once, of which a few automata have far fewer than one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};

/// States that an automaton may remember per thread, several times of what English answers need; with too little it forgets and remakes them.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// What a sentence is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol(pub u16);

impl Symbol {
    fn index(self) -> usize {
        self.0.into()
    }
}

/// One role name per bit of [`Roles`].
pub type Roles = u64;

/// What the grammar file says, and where it goes wrong: `line` is 1-based.
#[derive(Debug)]
pub struct GrammarError {
    pub line: usize,
    pub cause: String,
}

impl std::fmt::Display for GrammarError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.cause)
    }
}

impl std::error::Error for GrammarError {}

/// A sentence that it matches has the role.
pub struct Rule {
    pub role: Roles,
    pub body: Vec<Part>,
    /// Of the grammar file, 1-based.
    pub line: usize,
}

pub enum Part {
    /// One symbol of these.
    Of(BTreeSet<Symbol>),
    /// So many symbols of any kind.
    Any { least: u32, most: u32 },
    /// Of the regular expression, as is.
    Operator(char),
}

pub struct Automata {
    automata: Vec<Automaton>,
    /// The bytes of a symbol, one for each automaton, after those of the symbol before it.
    bytes: Vec<u8>,
}

struct Automaton {
    dfa: DFA,
    /// What each pattern says.
    roles: Vec<Roles>,
}

/// Puts rules that follow each other into one automaton for as long as they fit.
pub fn compile(rules: &[Rule], symbol_count: usize) -> Result<Automata, GrammarError> {
    let mut groups: Vec<(Alphabet, Vec<&Rule>)> = Vec::new();
    for rule in rules {
        match groups.last_mut() {
            Some((alphabet, members)) if alphabet.telling_apart(rule).fits() => {
                *alphabet = alphabet.telling_apart(rule);
                members.push(rule);
            }
            _ => groups.push((Alphabet::new(symbol_count).telling_apart(rule), vec![rule])),
        }
    }
    let mut automata = Automata {
        automata: Vec::new(),
        bytes: vec![0; symbol_count * groups.len()],
    };
    for (place, (alphabet, rules)) in groups.iter().enumerate() {
        let alphabet = alphabet.bytes().ok_or_else(|| too_many_kinds(rules[0]))?;
        automata.automata.push(Automaton::new(&alphabet, rules)?);
        for (bytes, byte) in automata.bytes.chunks_exact_mut(groups.len()).zip(alphabet) {
            bytes[place] = byte;
        }
    }
    Ok(automata)
}

fn too_many_kinds(rule: &Rule) -> GrammarError {
    GrammarError {
        line: rule.line,
        cause: "the rule tells more than 256 kinds of word apart".into(),
    }
}

/// Kinds of symbols that some rules tell apart.
#[derive(Clone)]
struct Alphabet {
    kind_of: Vec<usize>,
    /// Symbols of each kind; a kind may be left without any.
    sizes: Vec<usize>,
}

impl Alphabet {
    fn new(symbol_count: usize) -> Alphabet {
        Alphabet {
            kind_of: vec![0; symbol_count],
            sizes: vec![symbol_count],
        }
    }

    fn telling_apart(&self, rule: &Rule) -> Alphabet {
        let mut alphabet = self.clone();
        for part in &rule.body {
            if let Part::Of(symbols) = part {
                alphabet.split(symbols);
            }
        }
        alphabet
    }

    /// Parts every kind into those symbols and its others.
    fn split(&mut self, symbols: &BTreeSet<Symbol>) {
        let mut split: BTreeMap<usize, usize> = BTreeMap::new();
        for symbol in symbols {
            let kind = self.kind_of[symbol.index()];
            let other = *split.entry(kind).or_insert_with(|| {
                self.sizes.push(0);
                self.sizes.len() - 1
            });
            self.sizes[kind] -= 1;
            self.sizes[other] += 1;
            self.kind_of[symbol.index()] = other;
        }
    }

    fn fits(&self) -> bool {
        self.sizes.iter().filter(|size| **size > 0).count() <= 256
    }

    /// The byte of each symbol, where there are enough.
    fn bytes(&self) -> Option<Vec<u8>> {
        let mut byte_of: BTreeMap<usize, u8> = BTreeMap::new();
        let byte = |kind: &usize| {
            let next = byte_of.len();
            match byte_of.get(kind) {
                Some(byte) => Some(*byte),
                None => Some(*byte_of.entry(*kind).or_insert(u8::try_from(next).ok()?)),
            }
        };
        self.kind_of.iter().map(byte).collect()
    }
}

impl Automaton {
    fn new(alphabet: &[u8], rules: &[&Rule]) -> Result<Automaton, GrammarError> {
        // One pattern a role, so that there are few kinds of match to keep apart.
        let mut patterns: BTreeMap<Roles, String> = BTreeMap::new();
        for rule in rules {
            let pattern = patterns.entry(rule.role).or_default();
            if !pattern.is_empty() {
                pattern.push('|');
            }
            render(rule, alphabet, pattern);
        }
        let (roles, patterns): (Vec<Roles>, Vec<String>) = patterns.into_iter().unzip();
        let is_bytes = syntax::Config::new()
            .unicode(false)
            .utf8(false)
            .dot_matches_new_line(true);
        let dfa = DFA::builder()
            .syntax(is_bytes)
            .thompson(thompson::Config::new().utf8(false))
            .configure(DFA::config().match_kind(MatchKind::All).cache_capacity(CACHE_BYTES_MAX))
            .build_many(&patterns)
            .map_err(|cause| GrammarError {
                line: rules[0].line,
                cause: cause.to_string(),
            })?;
        Ok(Automaton { dfa, roles })
    }

    /// Where a sentence begins.
    fn start(&self, walk: &mut Walk) {
        let start = self.dfa.start_state_forward(&mut walk.cache, &Input::new(""));
        walk.state = start.expect(NEVER_STOPS);
    }

    /// Goes on by one symbol, and says what it has seen before it: a match shows one byte later.
    fn step(&self, walk: &mut Walk, byte: u8) -> Roles {
        let next = self.dfa.next_state(&mut walk.cache, walk.state, byte);
        walk.state = next.expect(NEVER_STOPS);
        self.roles_at(walk)
    }

    /// The end of the sentence.
    fn end(&self, walk: &mut Walk) -> Roles {
        let last = self.dfa.next_eoi_state(&mut walk.cache, walk.state);
        walk.state = last.expect(NEVER_STOPS);
        self.roles_at(walk)
    }

    fn roles_at(&self, walk: &Walk) -> Roles {
        match walk.state.is_match() {
            true => self.roles_of(&walk.cache, walk.state),
            false => 0,
        }
    }

    fn roles_of(&self, cache: &Cache, state: LazyStateID) -> Roles {
        (0..self.dfa.match_len(cache, state))
            .map(|index| self.roles[self.dfa.match_pattern(cache, state, index).as_usize()])
            .fold(0, |all, role| all | role)
    }
}

/// Appends a rule as a regular expression over bytes.
fn render(rule: &Rule, alphabet: &[u8], pattern: &mut String) {
    const ACCEPTS: &str = "a String accepts every write";
    pattern.push_str("(?:");
    for part in &rule.body {
        match part {
            Part::Of(symbols) => {
                let bytes: BTreeSet<u8> = symbols.iter().map(|symbol| alphabet[symbol.index()]).collect();
                pattern.push('[');
                bytes
                    .iter()
                    .for_each(|byte| write!(pattern, "\\x{byte:02x}").expect(ACCEPTS));
                pattern.push(']');
            }
            Part::Any { least, most } => write!(pattern, "(?:.{{{least},{most}}})").expect(ACCEPTS),
            Part::Operator('(') => pattern.push_str("(?:"),
            Part::Operator(operator) => pattern.push(*operator),
        }
    }
    pattern.push(')');
}

/// The lazy automaton can give up only on a quit byte or a cache-clear limit, and neither is configured.
const NEVER_STOPS: &str = "a search without quit bytes cannot fail";

/// How far one automaton is in a sentence, with the states that it has met.
struct Walk {
    cache: Cache,
    state: LazyStateID,
}

/// The scratch memory of one thread.
pub struct Matcher<'g> {
    automata: &'g Automata,
    walks: Vec<Walk>,
}

impl<'g> Matcher<'g> {
    pub fn new(automata: &'g Automata) -> Matcher<'g> {
        let walk = |automaton: &Automaton| Walk {
            cache: automaton.dfa.create_cache(),
            state: LazyStateID::default(),
        };
        Matcher {
            automata,
            walks: automata.automata.iter().map(walk).collect(),
        }
    }

    /// Every role that some rule finds in this sentence. The automata go through it side by side: one step waits for the step before it,
    /// but not for those of the others.
    pub fn roles(&mut self, symbols: &[Symbol]) -> Roles {
        let Automata { automata, bytes } = self.automata;
        let walks = &mut self.walks;
        automata
            .iter()
            .zip(&mut *walks)
            .for_each(|(automaton, walk)| automaton.start(walk));
        let mut roles = 0;
        for symbol in symbols {
            let bytes = &bytes[symbol.index() * automata.len()..];
            for ((automaton, walk), byte) in automata.iter().zip(&mut *walks).zip(bytes) {
                roles |= automaton.step(walk, *byte);
            }
        }
        let ends = automata.iter().zip(walks).map(|(automaton, walk)| automaton.end(walk));
        ends.fold(roles, |all, found| all | found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(role: Roles, sets: &[&[usize]]) -> Rule {
        let part = |set: &&[usize]| Part::Of(set.iter().map(|index| Symbol(*index as u16)).collect());
        Rule {
            role,
            body: sets.iter().map(part).collect(),
            line: 1,
        }
    }

    fn roles(automata: &Automata, sentence: &[usize]) -> Roles {
        let symbols: Vec<Symbol> = sentence.iter().map(|index| Symbol(*index as u16)).collect();
        Matcher::new(automata).roles(&symbols)
    }

    #[test]
    fn symbols_share_a_byte_where_no_rule_tells_them_apart() {
        let alphabet = Alphabet::new(6).telling_apart(&rule(1, &[&[1, 2, 3], &[3, 4]]));
        let bytes = alphabet.bytes().unwrap();
        assert_eq!(bytes, [0, 1, 1, 2, 3, 0]);
    }

    #[test]
    fn rules_are_found_whichever_automaton_holds_them() {
        // Each names a hundred symbols of its own: two fit together.
        let symbols: Vec<[usize; 1]> = (0..500).map(|index| [index + 1]).collect();
        let rules: Vec<Rule> = symbols
            .chunks(100)
            .enumerate()
            .map(|(index, own)| {
                let mut rule = rule(1 << index, &[&own[0]]);
                for symbol in &own[1..] {
                    rule.body.push(Part::Operator('|'));
                    rule.body.push(Part::Of([Symbol(symbol[0] as u16)].into()));
                }
                rule
            })
            .collect();
        let automata = compile(&rules, 501).unwrap();
        assert_eq!(automata.automata.len(), 3);
        assert_eq!(roles(&automata, &[0, 50, 0]), 1);
        assert_eq!(roles(&automata, &[450, 150]), 0b10010);
        assert_eq!(roles(&automata, &[0]), 0);
    }

    #[test]
    fn a_rule_of_too_many_kinds_is_refused() {
        let all: Vec<[usize; 1]> = (0..300).map(|index| [index]).collect();
        let sets: Vec<&[usize]> = all.iter().map(|one| &one[..]).collect();
        assert!(compile(&[rule(1, &sets)], 300).is_err());
        assert!(compile(&[rule(1, &sets[..256])], 256).is_ok());
    }

    #[test]
    fn a_gap_takes_no_more_than_it_may() {
        let mut rule = rule(1, &[&[1], &[2]]);
        rule.body.insert(1, Part::Any { least: 0, most: 2 });
        let automata = compile(&[rule], 4).unwrap();
        assert_eq!(roles(&automata, &[1, 0, 3, 2]), 1);
        assert_eq!(roles(&automata, &[1, 0, 3, 0, 2]), 0);
    }
}
