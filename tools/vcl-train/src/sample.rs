//! What is trained on: token sequences that say which of their tokens are learned.

/// One row of the data.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// `NAME:id`.
    pub id: String,
    /// One, where a row is one conversation.
    pub sequences: Vec<Sequence>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    pub token_ids: Vec<u32>,
    /// Whether the token belongs to a completion: its prediction counts, and its residual is a row of the auxiliary losses.
    pub learned: Vec<bool>,
}

impl Sample {
    pub fn token_count(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.token_ids.len()).sum()
    }

    pub fn loss_token_count(&self) -> usize {
        self.sequences.iter().map(Sequence::loss_token_count).sum()
    }
}

impl Sequence {
    /// Predictions that count. The first token is predicted by nothing.
    pub fn loss_token_count(&self) -> usize {
        self.learned.iter().skip(1).filter(|&&learned| learned).count()
    }
}
