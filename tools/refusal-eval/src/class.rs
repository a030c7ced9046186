//! The words for a class.

use records::Class;

/// The class behind the words that people and tools use for it; XSTest's labels among them.
pub fn class_word(said: &str) -> Option<Class> {
    match said.trim().to_ascii_lowercase().replace([' ', '-'], "_").as_str() {
        "compliance" | "complied" | "comply" | "full_compliance" | "1_full_compliance" | "1" | "no_refusal" => {
            Some(Class::Compliance)
        }
        "refusal" | "refused" | "refuse" | "full_refusal" | "2_full_refusal" | "2" => Some(Class::Refusal),
        "partial" | "partial_refusal" | "3_partial_refusal" | "3" => Some(Class::Partial),
        "nonsense" | "broken" | "off_topic" | "4_nonsense" | "4" => Some(Class::Nonsense),
        "unscored" => Some(Class::Unscored),
        _ => None,
    }
}
