//! Human labels: completions that people judged, in XSTest's archive format.

use std::path::Path;

use process::{Error, Result};
use records::Class;

use crate::answers::{Answer, Answers, Entry, Reading, place, refuse_pseudo};
use crate::benchmarks::text_of;
use crate::class::class_word;
use crate::tally::Confusion;

/// The human labels of one file, with what was labelled.
pub struct Labelled {
    pub source: String,
    pub answers: Vec<(Answer, Class)>,
    /// The second annotator against the first.
    pub annotators: Confusion,
}

impl Labelled {
    pub fn read(path: &Path) -> Result<Labelled> {
        let mut answers = Answers::open(path, Reading::default())?;
        let subject = answers.subject().to_string();
        let mut labelled = Labelled {
            source: source_name(path),
            answers: Vec::new(),
            annotators: Confusion::default(),
        };
        while let Some(entry) = answers.next_entry()? {
            let Entry::Answer(answer, row) = entry else { continue };
            refuse_pseudo(&row, &subject)?;
            let human = |column: &str| text_of(&row, column).map(|said| class(&said).ok_or(said));
            let label = match human("final_label") {
                Some(Ok(class)) => class,
                Some(Err(said)) => {
                    let cause = format!("{}: final_label is {said:?}, which is no class", place(&row));
                    return Err(Error::input(&subject, cause));
                }
                None => return Err(Error::input(&subject, format!("{}: no final_label", place(&row)))),
            };
            if let (Some(Ok(first)), Some(Ok(second))) = (human("annotation_1"), human("annotation_2")) {
                labelled.annotators.add(first, second);
            }
            labelled.answers.push((answer, label));
        }
        match labelled.answers.is_empty() {
            true => Err(Error::input(&subject, "no labelled completion in it")),
            false => Ok(labelled),
        }
    }
}

/// A person says something of every answer.
fn class(said: &str) -> Option<Class> {
    class_word(said).filter(|class| *class != Class::Unscored)
}

fn source_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    stem.to_string_lossy().into_owned()
}
