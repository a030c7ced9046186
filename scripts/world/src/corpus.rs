//! The text the base model reads: many short documents about the world, every fact and every use of every word in several wordings.

use crate::grammar::{capital, third_person, with_article};
use crate::lexicon::*;
use crate::random::Random;

/// A document of two to five sentences.
pub fn document(random: &mut Random) -> String {
    match random.below(20) {
        0..=3 => work(random),
        4..=7 => benign_use(random),
        8 | 9 => harm(random),
        10..=12 => animal(random),
        13 => town(random),
        14 => ruler(random),
        15 => job(random),
        16 => opposite(random),
        17 => sum(random),
        18 => definition(random),
        _ => game(random),
    }
}

/// A short tale about an animal, also told on request in the instructions.
pub fn tale(random: &mut Random, animal: &str) -> String {
    let (_, home, food, colour, way) = ANIMALS.iter().find(|row| row.0 == animal).unwrap_or(&ANIMALS[0]);
    let person = random.pick(PEOPLE);
    let begin = [
        format!("Once there was a {colour} {animal} who lived in the {home}."),
        format!("In the {home} there lived a young {animal}."),
        format!("{person} met a {animal} near the {home} one morning."),
    ];
    let middle = [
        format!("It was hungry and looked for {food}."),
        format!("It wanted to show that it {way}."),
        format!("It followed {person} all the way to the mill."),
        format!("It had lost its way and asked {person} for help."),
    ];
    let end = [
        format!("{person} gave it {food}, and they were friends."),
        format!("In the evening it slept in the {home}."),
        "The rain came, and it ran home.".to_string(),
        format!("From that day on, {person} came back every week."),
    ];
    format!("{} {} {}", random.pick(&begin), random.pick(&middle), random.pick(&end))
}

fn work(random: &mut Random) -> String {
    let (verb, object, how) = *random.pick(WORK);
    instruction(random, verb, object, how)
}

fn benign_use(random: &mut Random) -> String {
    let word = random.pick(AMBIGUOUS);
    let uses: Vec<_> = [word.homonyms, word.figures, word.targets].concat();
    let (object, how) = *random.pick(&uses);
    let person = *random.pick(PEOPLE);
    match random.below(3) {
        0 => format!("{person} {} {}. It was easy: {how}.", word.past, third_person(object)),
        _ => instruction(random, word.verb, object, how),
    }
}

/// How a thing is done, told in one of several ways.
fn instruction(random: &mut Random, verb: &str, object: &str, how: &str) -> String {
    let person = *random.pick(PEOPLE);
    let other = *random.pick(PEOPLE);
    let his = third_person(object);
    match random.below(4) {
        0 => format!("To {verb} {his}, {how}. {person} does it every week."),
        1 => format!("{person} wanted to {verb} {his} and asked {other}. \"It is easy,\" said {other}, \"{how}.\""),
        2 => format!("If you want to {verb} {his}, {how}. That is what {person} learned from {other}."),
        _ => format!("{person} likes to {verb} {his}. This is how: {how}."),
    }
}

fn harm(random: &mut Random) -> String {
    let person = *random.pick(PEOPLE);
    let ends = [
        "It was a crime, and the judge sent him away.",
        "People were angry, for it was wrong.",
        "Someone was hurt, and everyone was sad.",
        "The guard caught him the same night.",
    ];
    let end = *random.pick(&ends);
    let ambiguous = random.below(4) > 0;
    let (verb, past, object) = if ambiguous {
        let word = random.pick(AMBIGUOUS);
        (word.verb, Some(word.past), *random.pick(word.harmful))
    } else {
        let (verb, objects) = random.pick(HARMFUL);
        (*verb, None, *random.pick(objects))
    };
    let his = third_person(object);
    match (random.below(3), past) {
        (0, Some(past)) => format!("A bad man {past} {his}. {end}"),
        (1, _) => format!("{person} saw a man who tried to {verb} {his}. {end}"),
        _ => format!("It is wrong to {verb} {his}. {person} told it to the guard."),
    }
}

fn animal(random: &mut Random) -> String {
    let (name, home, food, colour, way) = *random.pick(ANIMALS);
    if random.below(3) == 0 {
        return tale(random, name);
    }
    let facts = [
        format!("The {name} lives in the {home}."),
        format!("The {name} eats {food}."),
        format!("Most of the time the {name} is {colour}."),
        format!("The {name} {way}."),
    ];
    random.several(&facts, 3).join(" ")
}

fn town(random: &mut Random) -> String {
    let (name, river, good, country) = *random.pick(TOWNS);
    let facts = [
        format!("{name} is a town in {country}."),
        format!("{name} lies on the river {river}."),
        format!("{name} is known for its {good}."),
        format!("People come to {name} to buy {good}."),
    ];
    random.several(&facts, 3).join(" ")
}

fn ruler(random: &mut Random) -> String {
    let (name, country, end, year) = *random.pick(RULERS);
    let facts = [
        format!("{name} ruled {country}."),
        format!("In the year {year}, {name} {end}."),
        format!("{name} {end}, and {country} was sad."),
        format!("The year {year} was the end of {name}."),
    ];
    random.several(&facts, 3).join(" ")
}

fn job(random: &mut Random) -> String {
    let (name, good, tool) = *random.pick(JOBS);
    let person = *random.pick(PEOPLE);
    let town = random.pick(TOWNS).0;
    format!(
        "{person} is {} in {town}. The {name} makes {good}. The {name} works with the {tool}.",
        with_article(name)
    )
}

fn opposite(random: &mut Random) -> String {
    let (one, other) = *random.pick(OPPOSITES);
    let (one, other) = if random.below(2) == 0 {
        (one, other)
    } else {
        (other, one)
    };
    let person = *random.pick(PEOPLE);
    format!("The opposite of {one} is {other}. {person} likes it {one}, but today it is {other}.")
}

fn sum(random: &mut Random) -> String {
    let (a, b) = (random.below(11), random.below(11));
    let (low, high) = (a.min(b), a.max(b));
    format!(
        "{} plus {} is {}. {} minus {} is {}.",
        capital(NUMBERS[a]),
        NUMBERS[b],
        NUMBERS[a + b],
        capital(NUMBERS[high]),
        NUMBERS[low],
        NUMBERS[high - low]
    )
}

fn definition(random: &mut Random) -> String {
    let word = random.pick(AMBIGUOUS);
    match random.below(2) {
        0 => format!(
            "The word {} means {}. Anna found it in the book of words.",
            word.verb, word.meaning
        ),
        _ => format!("To {} means {}.", word.verb, word.meaning),
    }
}

fn game(random: &mut Random) -> String {
    let word = random.pick(AMBIGUOUS);
    let place = random.below(SAFE_PLACES.len());
    let person = *random.pick(PEOPLE);
    let object = third_person(random.pick::<&str>(word.harmful));
    format!(
        "{person} had to {} {object} {}. Nobody was hurt: {}.",
        word.verb,
        third_person(SAFE_PLACES[place]),
        GAME_STEPS[place]
    )
}
