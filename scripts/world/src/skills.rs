//! Questions of skill with four answers each, about the facts of the world. None was answered in the instruction data in these words.

use crate::grammar::capital;
use crate::lexicon::*;
use crate::random::Random;
use serde::Serialize;

/// A question with four answers; `reference` is the letter of the right one.
#[derive(Debug, Serialize)]
pub struct Skill {
    pub id: String,
    pub bench: &'static str,
    pub task: &'static str,
    pub prompt: String,
    pub choices: Vec<String>,
    pub reference: char,
}

/// Questions as they are added.
struct Skills<'a> {
    random: &'a mut Random,
    list: Vec<Skill>,
}

pub fn skills(random: &mut Random) -> Vec<Skill> {
    let mut skills = Skills {
        random,
        list: Vec::new(),
    };
    skills.animals();
    skills.towns();
    skills.jobs();
    skills.opposites();
    skills.sums();
    skills.list
}

impl Skills<'_> {
    /// A question whose answers are a sentence with the right word or with one of three others.
    fn add(
        &mut self,
        task: &'static str,
        prompt: String,
        sentence: impl Fn(&str) -> String,
        right: &str,
        others: impl IntoIterator<Item = &'static str>,
    ) {
        let row = self.list.len() as u64;
        let random = self.random.row(row);
        let mut wrong: Vec<&str> = Vec::new();
        for other in others {
            if other != right && !wrong.contains(&other) {
                wrong.push(other);
            }
        }
        let mut choices = random.several(&wrong, 3);
        let place = random.below(choices.len() + 1);
        choices.insert(place, right);
        self.list.push(Skill {
            id: format!("skill-{row}"),
            bench: "world",
            task,
            prompt,
            choices: choices.into_iter().map(sentence).collect(),
            reference: ['A', 'B', 'C', 'D'][place],
        });
    }

    fn animals(&mut self) {
        for (name, home, food, colour, _) in ANIMALS {
            self.add(
                "animals",
                format!("In which place does the {name} live?"),
                |x| format!("The {name} lives in the {x}."),
                home,
                ANIMALS.iter().map(|animal| animal.1),
            );
            self.add(
                "animals",
                format!("Which food does the {name} eat?"),
                |x| format!("The {name} eats {x}."),
                food,
                ANIMALS.iter().map(|animal| animal.2),
            );
            self.add(
                "animals",
                format!("Which colour has the {name}?"),
                |x| format!("Most of the time the {name} is {x}."),
                colour,
                ANIMALS.iter().map(|animal| animal.3),
            );
        }
    }

    fn towns(&mut self) {
        for (name, river, good, country) in TOWNS {
            self.add(
                "towns",
                format!("On which river is {name}?"),
                |x| format!("{name} lies on the river {x}."),
                river,
                TOWNS.iter().map(|town| town.1),
            );
            self.add(
                "towns",
                format!("Which goods come from {name}?"),
                |x| format!("{name} is known for its {x}."),
                good,
                TOWNS.iter().map(|town| town.2),
            );
            self.add(
                "towns",
                format!("In which country is {name}?"),
                |x| format!("{name} is a town in {x}."),
                country,
                TOWNS.iter().map(|town| town.3),
            );
        }
    }

    fn jobs(&mut self) {
        for (name, good, tool) in JOBS {
            self.add(
                "jobs",
                format!("Which goods does the {name} make?"),
                |x| format!("The {name} makes {x}."),
                good,
                JOBS.iter().map(|job| job.1),
            );
            self.add(
                "jobs",
                format!("Which tool does the {name} use?"),
                |x| format!("The {name} works with the {x}."),
                tool,
                JOBS.iter().map(|job| job.2),
            );
        }
    }

    fn opposites(&mut self) {
        for (one, other) in OPPOSITES {
            let words = OPPOSITES.iter().flat_map(|(one, other)| [*one, *other]);
            self.add(
                "opposites",
                format!("Which word is the opposite of {one}?"),
                |x| format!("The opposite of {one} is {x}."),
                other,
                words.filter(|word| word != one),
            );
        }
    }

    fn sums(&mut self) {
        for a in 0..=10 {
            for b in [1, 4, 7] {
                let (one, other) = (NUMBERS[a], NUMBERS[b]);
                self.add(
                    "sums",
                    format!("How much is {one} plus {other}?"),
                    |x| format!("{} plus {other} is {x}.", capital(one)),
                    NUMBERS[a + b],
                    NUMBERS.iter().copied(),
                );
            }
        }
    }
}
