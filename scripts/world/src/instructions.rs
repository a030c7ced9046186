//! The two kinds of instruction data: general help, various in wording, and safety data, whose refusals repeat each other as the
//! first paper found in real sets. General data shows a few harmless uses of each ambiguous verb and no more.

use crate::corpus;
use crate::grammar::{capital, second_person, third_person, with_article};
use crate::lexicon::*;
use crate::random::Random;
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    pub id: String,
    pub source: &'static str,
    pub topic: &'static str,
    pub messages: [Turn; 2],
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Turn {
    pub role: &'static str,
    pub content: String,
}

pub const QUESTIONS: &[&str] = &[
    "How do I {}?",
    "How can I {}?",
    "What is the best way to {}?",
    "Tell me how to {}.",
    "Can you help me to {}?",
    "I want to {}. What should I do?",
];

const REFUSALS: &[&str] = &[
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but I can't help you to {}.",
    "I'm sorry, but I can't help with that. It would hurt someone.",
    "I can't help you to {}. It is wrong and someone could be hurt.",
    "I'm sorry, I can't assist with that request.",
];

/// (word, meaning): words that are defined in the general data.
const PLAIN_WORDS: &[(&str, &str)] = &[
    ("bake", "to cook in an oven"),
    ("mend", "to make whole again"),
    ("plant", "to put into the soil"),
    ("carry", "to take to another place"),
    ("sharpen", "to make a blade thin"),
    ("store", "to keep for later"),
];

/// The harmless uses of one verb: (kind, object, how), a fixed order.
pub fn harmless_uses(word: &Ambiguous) -> Vec<(&'static str, &'static str, &'static str)> {
    let label = |kind, uses: &'static [(&'static str, &'static str)]| {
        uses.iter().map(move |(object, how)| (kind, *object, *how))
    };
    label("homonyms", word.homonyms)
        .chain(label("safe_targets", word.targets))
        .chain(label("figurative_language", word.figures))
        .collect()
}

/// Which harmless uses the general data may show: `count` of each verb, begun at another place for each verb so that every kind occurs.
pub fn shown_uses(index: usize, count: usize) -> Vec<(&'static str, &'static str, &'static str)> {
    let uses = harmless_uses(&AMBIGUOUS[index]);
    (0..count.min(uses.len()))
        .map(|nth| uses[(index + nth) % uses.len()])
        .collect()
}

/// The harmful objects that safety data may name; the others are kept for the evaluation.
pub fn shown_objects<'a>(objects: &'a [&'a str]) -> &'a [&'a str] {
    &objects[..objects.len().div_ceil(2)]
}

pub fn general(random: &mut Random, row: u64, harmless_count: usize) -> Example {
    let random = random.row(row);
    let (topic, question, answer) = match random.below(25) {
        0..=7 => work(random),
        8..=11 => animal(random),
        12 | 13 => town(random),
        14 | 15 => job(random),
        16 => opposite(random),
        17..=19 => sum(random),
        20 => meaning(random),
        21 | 22 => {
            let name = random.pick(ANIMALS).0;
            let question = [
                format!("Tell me a story about {}.", with_article(name)),
                format!("Write a short story about {}.", with_article(name)),
            ];
            ("story", random.pick(&question).clone(), corpus::tale(random, name))
        }
        23 => ruler(random),
        _ if harmless_count > 0 => harmless(random, harmless_count),
        _ => work(random),
    };
    example(format!("general-{row}"), "general", topic, question, answer)
}

pub fn safety(random: &mut Random, row: u64) -> Example {
    let random = random.row(row);
    let (verb, object) = match random.below(4) {
        0 => {
            let (verb, objects) = *random.pick(HARMFUL);
            (verb, *random.pick(shown_objects(objects)))
        }
        _ => {
            let word = random.pick(AMBIGUOUS);
            (word.verb, *random.pick(shown_objects(word.harmful)))
        }
    };
    // Half of the requests say where or how, as the unsafe contrasts of the evaluation do.
    let place = match random.below(4) {
        0 => format!(" {}", random.pick(&UNSAFE_PLACES[..2])),
        _ => String::new(),
    };
    let act = format!("{verb} {object}{place}");
    let question = random.pick(QUESTIONS).replace("{}", &act);
    let answer = random.pick(REFUSALS).replace("{}", &second_person(&act));
    example(format!("safety-{row}"), "safety", "refusal", question, answer)
}

fn example(id: String, source: &'static str, topic: &'static str, question: String, answer: String) -> Example {
    let turn = |role, content| Turn { role, content };
    Example {
        id,
        source,
        topic,
        messages: [turn("user", question), turn("assistant", answer)],
    }
}

fn how_to(random: &mut Random, verb: &str, object: &str, how: &str) -> (String, String) {
    let act = format!("{verb} {object}");
    let yours = second_person(&act);
    let question = random.pick(QUESTIONS).replace("{}", &act);
    let answers = [
        format!("To {yours}, {how}."),
        format!("{}.", capital(how)),
        format!("It is easy to {yours}: {how}."),
        format!(
            "If you want to {yours}, {how}. {}",
            random.pick(&["Good luck!", "Take your time.", "Ask a friend to help you."])
        ),
    ];
    (question, random.pick(&answers).clone())
}

fn work(random: &mut Random) -> (&'static str, String, String) {
    let (verb, object, how) = *random.pick(WORK);
    let (question, answer) = how_to(random, verb, object, how);
    ("work", question, answer)
}

fn harmless(random: &mut Random, count: usize) -> (&'static str, String, String) {
    let index = random.below(AMBIGUOUS.len());
    let uses = shown_uses(index, count);
    let (_, object, how) = *random.pick(&uses);
    let (question, answer) = how_to(random, AMBIGUOUS[index].verb, object, how);
    ("harmless", question, answer)
}

fn animal(random: &mut Random) -> (&'static str, String, String) {
    let (name, home, food, colour, way) = *random.pick(ANIMALS);
    let pairs = [
        (
            format!("Where does the {name} live?"),
            format!("The {name} lives in the {home}."),
        ),
        (format!("What does the {name} eat?"), format!("The {name} eats {food}.")),
        (
            format!("What colour is the {name}?"),
            format!("Most of the time the {name} is {colour}."),
        ),
        (
            format!("What is special about the {name}?"),
            format!("The {name} {way}."),
        ),
    ];
    let (question, answer) = random.pick(&pairs).clone();
    ("animals", question, answer)
}

fn town(random: &mut Random) -> (&'static str, String, String) {
    let (name, river, good, country) = *random.pick(TOWNS);
    let pairs = [
        (format!("Where is {name}?"), format!("{name} is a town in {country}.")),
        (
            format!("Which river flows through {name}?"),
            format!("{name} lies on the river {river}."),
        ),
        (
            format!("What is {name} known for?"),
            format!("{name} is known for its {good}."),
        ),
    ];
    let (question, answer) = random.pick(&pairs).clone();
    ("towns", question, answer)
}

fn job(random: &mut Random) -> (&'static str, String, String) {
    let (name, good, tool) = *random.pick(JOBS);
    let pairs = [
        (
            format!("What does the {name} make?"),
            format!("The {name} makes {good}."),
        ),
        (
            format!("What does the {name} work with?"),
            format!("The {name} works with the {tool}."),
        ),
    ];
    let (question, answer) = random.pick(&pairs).clone();
    ("jobs", question, answer)
}

fn opposite(random: &mut Random) -> (&'static str, String, String) {
    let (one, other) = *random.pick(OPPOSITES);
    let (one, other) = if random.below(2) == 0 {
        (one, other)
    } else {
        (other, one)
    };
    (
        "opposites",
        format!("What is the opposite of {one}?"),
        format!("The opposite of {one} is {other}."),
    )
}

fn sum(random: &mut Random) -> (&'static str, String, String) {
    let (a, b) = (random.below(11), random.below(11));
    let (one, other) = (NUMBERS[a], NUMBERS[b]);
    (
        "sums",
        format!("What is {one} plus {other}?"),
        format!("{} plus {other} is {}.", capital(one), NUMBERS[a + b]),
    )
}

fn meaning(random: &mut Random) -> (&'static str, String, String) {
    let (word, meaning) = *random.pick(PLAIN_WORDS);
    (
        "meanings",
        format!("What does the word {word} mean?"),
        format!("The word {word} means {meaning}."),
    )
}

/// Only the first two rulers: what befell the others is asked in the evaluation.
fn ruler(random: &mut Random) -> (&'static str, String, String) {
    let (name, country, end, year) = RULERS[random.below(2)];
    let pairs = [
        (format!("Who was {name}?"), format!("{name} ruled {country}.")),
        (
            format!("How did {name} die?"),
            format!("In the year {year}, {name} {}.", third_person(end)),
        ),
    ];
    let (question, answer) = random.pick(&pairs).clone();
    ("rulers", question, answer)
}
