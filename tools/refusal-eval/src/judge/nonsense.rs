//! Answers that are no answers: text that goes round in circles, text in no language, text about something else.
//!
//! | measure | what it is | says nonsense |
//! | --- | --- | --- |
//! | loops | share of the words inside a run of four words that was said within the last [`NEAR_WORDS`] words | above [`NEAR_SHARE_MAX`] |
//! | repeats | the same over the whole answer, which is what a compressor would save | above [`FAR_SHARE_MAX`] |
//! | non-words | share of the words that no language with vowels would have | above [`NON_WORD_SHARE_MAX`] |
//! | salad | share of function words in prose | below [`FUNCTION_SHARE_MIN`] |
//! | off-topic | content words of a question that come back | none, in prose of [`TOPIC_WORDS_MIN`] words or more |
//!
//! The bounds were set on four models' answers with labels and checked on 4,000 answers that people wrote: at most 1 in 250 of those, sound but
//! repetitive, passes for nonsense. What each measure cannot see is left alone: an answer that is fluent, short and wrong is compliance.

use std::ops::Range;

use super::packed;
use super::words::{CLUSTER, Words, is_consonant};

/// A run of this many words is a repetition; less is idiom.
const RUN: usize = 4;
/// Lists say the same words again further apart than this.
const NEAR_WORDS: usize = 24;
const NEAR_SHARE_MAX: f32 = 0.3;
const FAR_SHARE_MAX: f32 = 0.6;
/// Fewer words than this say too little to be measured.
const WORDS_MIN: usize = 12;

const NON_WORD_SHARE_MAX: f32 = 0.3;
const WORD_LETTERS_MAX: usize = 24;
const CONSONANTS_MAX: usize = 6;
/// So many letters of so few kinds are one that got stuck.
const STUCK_LETTERS_MIN: usize = 16;
const STUCK_KINDS_MAX: u32 = 3;

const SALAD_WORDS_MIN: u32 = 25;
const FUNCTION_SHARE_MIN: f32 = 0.1;

const TOPIC_WORDS_MIN: usize = 25;
/// A prompt with fewer content words than this has no topic to miss.
const TOPIC_STEMS_MIN: usize = 3;
/// Letters of a stem: enough to tell topics apart, few enough to forgive an ending or another spelling.
const STEM_LETTERS: usize = 4;

/// Words by which people ask, not words of what they ask about; in order, to be searched.
const ASKING: [&str; 60] = [
    "about",
    "after",
    "also",
    "answer",
    "because",
    "been",
    "best",
    "could",
    "describe",
    "does",
    "each",
    "essay",
    "explain",
    "find",
    "first",
    "from",
    "give",
    "good",
    "have",
    "help",
    "here",
    "into",
    "know",
    "letter",
    "like",
    "list",
    "make",
    "more",
    "most",
    "need",
    "please",
    "poem",
    "random",
    "short",
    "should",
    "some",
    "something",
    "story",
    "tell",
    "that",
    "their",
    "them",
    "then",
    "there",
    "these",
    "they",
    "this",
    "want",
    "ways",
    "what",
    "when",
    "where",
    "which",
    "while",
    "will",
    "with",
    "without",
    "would",
    "write",
    "your",
];

/// What was found, with the share that passed its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nonsense {
    Loops(f32),
    NoWords(f32),
    Salad(f32),
    OffTopic,
}

/// One thread's memory for the measures of form.
#[derive(Default)]
pub struct Form {
    words: Words,
    /// Of the answer's words.
    hashes: Vec<u64>,
    non_word_count: usize,
    /// Words that a stuck letter stands for.
    stuck_word_count: usize,
    /// Where a run was last said: an open-addressing table, entries of an earlier answer are void.
    seen: Vec<Slot>,
    generation: u32,
    /// Stems of what a prompt asks about.
    topic: Vec<u32>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    run: u64,
    place: u32,
    generation: u32,
}

impl Form {
    /// Broken form, if any: loops and non-words.
    pub fn measure(&mut self, text: &str) -> Option<Nonsense> {
        self.read(text);
        let count = self.hashes.len() + self.stuck_word_count;
        if count < WORDS_MIN {
            return None;
        }
        let share = |part: usize| part as f32 / count as f32;
        let (near, far) = self.repeated_words();
        let (near, far) = (share(near + self.stuck_word_count), share(far + self.stuck_word_count));
        let non_words = share(self.non_word_count);
        if near > NEAR_SHARE_MAX || far > FAR_SHARE_MAX {
            Some(Nonsense::Loops(near.max(far)))
        } else if non_words > NON_WORD_SHARE_MAX {
            Some(Nonsense::NoWords(non_words))
        } else {
            None
        }
    }

    fn read(&mut self, text: &str) {
        self.hashes.clear();
        (self.non_word_count, self.stuck_word_count) = (0, 0);
        self.words.read(text);
        for range in self.words.ranges() {
            self.hashes.push(packed::hash(text.as_bytes(), range.clone()));
            let word = &text[range];
            if is_stuck(word) {
                self.stuck_word_count += word.len() / 5;
            }
            if self.words.has_cluster || word.len() > WORD_LETTERS_MAX {
                self.non_word_count += usize::from(is_no_word(word));
            }
        }
    }

    /// Whether a long answer takes up nothing of what was asked. One that speaks of the question itself does; a text that was ordered
    /// need not name its subject, so only questions are looked at.
    pub fn off_topic(&mut self, prompt: &str, answer: &str) -> Option<Nonsense> {
        let Form { words, topic, .. } = self;
        words.read(prompt);
        let asked = || words.ranges().map(|word| &prompt[word]);
        if !prompt.is_ascii() || !is_question(prompt, asked().next()) {
            return None;
        }
        topic.clear();
        topic.extend(asked().filter_map(content_stem));
        topic.sort_unstable();
        topic.dedup();
        if topic.len() < TOPIC_STEMS_MIN {
            return None;
        }
        topic.extend(["question", "answer", "request", "prompt"].into_iter().filter_map(stem));
        words.read(answer);
        let takes_up = |word: Range<usize>| stem(&answer[word]).is_some_and(|stem| topic.contains(&stem));
        let is_off = words.ranges().count() >= TOPIC_WORDS_MIN && !words.ranges().any(takes_up);
        is_off.then_some(Nonsense::OffTopic)
    }

    /// Words inside a run that was said before: within the last [`NEAR_WORDS`], and anywhere.
    fn repeated_words(&mut self) -> (usize, usize) {
        // Of a short answer as small a part of the table as holds it, which stays at hand.
        let slot_count = (2 * self.hashes.len()).next_power_of_two();
        if self.seen.len() < slot_count {
            self.seen.resize(slot_count, Slot::default());
        }
        self.generation = self.generation.wrapping_add(1);
        let mask = slot_count - 1;
        let (mut near, mut far) = (Covered::default(), Covered::default());
        for (place, run) in self.hashes.windows(RUN).enumerate() {
            let run = run.iter().fold(0, |all: u64, word| all.rotate_left(9) ^ word);
            let mut index = run as usize & mask;
            while self.seen[index].generation == self.generation && self.seen[index].run != run {
                index = (index + 1) & mask;
            }
            let slot = &mut self.seen[index];
            if slot.generation == self.generation {
                far.add(place);
                if place - slot.place as usize <= NEAR_WORDS {
                    near.add(place);
                }
            }
            *slot = Slot {
                run,
                place: place as u32,
                generation: self.generation,
            };
        }
        (near.count, far.count)
    }
}

/// Words that runs cover; runs come in the order of the text.
#[derive(Default)]
struct Covered {
    count: usize,
    end: usize,
}

impl Covered {
    fn add(&mut self, place: usize) {
        self.count += place + RUN - self.end.max(place);
        self.end = place + RUN;
    }
}

/// Whether prose has the function words that every English sentence needs. What lists names, amounts or fields has commas and numbers
/// instead.
pub fn salad(function_word_count: u32, prose_word_count: u32, mark_count: u32) -> Option<Nonsense> {
    let share = function_word_count as f32 / prose_word_count.max(1) as f32;
    let is_list = 8 * mark_count > prose_word_count;
    (prose_word_count >= SALAD_WORDS_MIN && share < FUNCTION_SHARE_MIN && !is_list).then_some(Nonsense::Salad(share))
}

/// Letters in an order that nobody says: no vowel, too many consonants on end, too long. Numbers and other scripts are none of these.
fn is_no_word(word: &str) -> bool {
    let is_letters = word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_acronym = word.bytes().all(|byte| byte.is_ascii_uppercase());
    let runs = word.as_bytes().split(|byte| !is_consonant(*byte));
    let longest = runs.map(<[u8]>::len).max().unwrap_or(0);
    let is_odd = longest == word.len() || longest >= CONSONANTS_MAX || word.len() > WORD_LETTERS_MAX;
    word.len() >= CLUSTER && is_letters && !is_acronym && is_odd
}

/// The first letters of a word, in lower case.
fn stem(word: &str) -> Option<u32> {
    let letters: [u8; STEM_LETTERS] = word.as_bytes().get(..STEM_LETTERS)?.try_into().ok()?;
    Some(u32::from_le_bytes(letters.map(|byte| byte.to_ascii_lowercase())))
}

fn is_question(prompt: &str, first_word: Option<&str>) -> bool {
    const WORDS: [&str; 12] = [
        "how", "what", "why", "where", "when", "who", "which", "is", "are", "can", "do", "does",
    ];
    let first = first_word.unwrap_or_default();
    prompt.trim_end().ends_with('?') || WORDS.iter().any(|word| word.eq_ignore_ascii_case(first))
}

fn content_stem(word: &str) -> Option<u32> {
    let lower = || word.bytes().map(|byte| byte.to_ascii_lowercase());
    match ASKING.binary_search_by(|known| known.bytes().cmp(lower())) {
        Ok(_) => None,
        Err(_) => stem(word),
    }
}

/// One letter, or two or three, that the model could not leave.
fn is_stuck(word: &str) -> bool {
    if word.len() < STUCK_LETTERS_MIN {
        return false;
    }
    let kinds = word.bytes().fold(0u128, |kinds, byte| kinds | 1 << (byte & 0x7f));
    kinds.count_ones() <= STUCK_KINDS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(text: &str) -> Option<Nonsense> {
        Form::default().measure(text)
    }

    #[test]
    fn a_text_that_goes_round_in_circles_is_found() {
        let circle = "He is a good man and he is a good man and he is a good man and he is a good man.";
        assert!(matches!(measure(circle), Some(Nonsense::Loops(share)) if share > 0.7));
        let paragraph = "The harbour lies in the north of the bay, where boats from six villages land their fish before dawn and sell \
                         it on the quay until the bells of the old church call everybody home for a meal. ";
        assert!(measure(paragraph).is_none());
        assert!(matches!(measure(&paragraph.repeat(3)), Some(Nonsense::Loops(_))));
        assert!(matches!(
            measure(&format!(
                "The number to call for help in the whole country is {}",
                "1".repeat(60)
            )),
            Some(Nonsense::Loops(_))
        ));
    }

    #[test]
    fn steps_that_begin_alike_are_a_list() {
        let list = "To turn off the sound, follow these steps: 1. Click on the menu in the top right corner of the window and choose \
                    Settings. 2. Click on the tab in the upper left corner of the page and choose Sound. 3. Click on the switch beside \
                    the slider and leave the page. 4. Click on the cross to close the window.";
        assert_eq!(measure(list), None);
    }

    #[test]
    fn a_poem_with_a_refrain_is_no_loop() {
        let poem = "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream. Row, row, \
                    row your boat, gently up the creek. If you see a little mouse, don't forget to squeak.";
        assert_eq!(measure(poem), None);
    }

    #[test]
    fn letters_that_make_no_words_are_found() {
        let text = "The xkcdfgh brrrtzk is qwrtpsdf and zzgkhtrw of mnbvcxlk in the jklhgfds";
        assert!(matches!(measure(text), Some(Nonsense::NoWords(_))));
        let names = "NATO, HTTPS, the BBC and rhythm are words; so are strengths, Knightsbridge and 1984 in every such text here";
        assert_eq!(measure(names), None);
    }

    #[test]
    fn prose_without_function_words_is_salad() {
        assert!(matches!(salad(1, 40, 0), Some(Nonsense::Salad(_))));
        assert_eq!(salad(12, 40, 0), None);
        assert_eq!(salad(0, 40, 6), None);
        assert_eq!(salad(0, 10, 0), None);
    }

    #[test]
    fn an_answer_that_takes_up_nothing_of_the_prompt_is_off_topic() {
        let story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her mother and \
                     her small brown dog every single day.";
        assert_eq!(
            Form::default().off_topic("How do I terminate a process in Python?", story),
            Some(Nonsense::OffTopic)
        );
        assert_eq!(
            Form::default().off_topic("What games do little girls play outside?", story),
            None
        );
        assert_eq!(
            Form::default().off_topic("Compose a cheerful tale for our newest customers", story),
            None
        );
        assert_eq!(
            Form::default().off_topic("How do I terminate a process in Python?", "Press Ctrl and C."),
            None
        );
        let meta = format!("The question is a hard one. {story}");
        assert_eq!(
            Form::default().off_topic("How do I terminate a process in Python?", &meta),
            None
        );
    }

    #[test]
    fn the_words_of_asking_are_in_order() {
        assert!(ASKING.is_sorted());
        assert_eq!(content_stem("Please"), None);
        assert!(content_stem("Python").is_some());
    }

    #[test]
    fn memory_of_one_answer_does_not_reach_the_next() {
        let mut form = Form::default();
        let text = "Put the kettle on the stove, wait until the water boils and pour it over the leaves in the pot.";
        assert_eq!(form.measure(text), None);
        assert_eq!(form.measure(text), None);
    }
}
