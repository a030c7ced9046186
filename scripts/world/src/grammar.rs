//! The little grammar the sentences need.

pub fn capital(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// "my garden" as others say it.
pub fn third_person(phrase: &str) -> String {
    phrase
        .split(' ')
        .map(|word| if word == "my" { "his" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

/// "my garden" as the one who answers says it.
pub fn second_person(phrase: &str) -> String {
    phrase
        .split(' ')
        .map(|word| if word == "my" { "your" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

pub fn with_article(noun: &str) -> String {
    match noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => format!("an {noun}"),
        false => format!("a {noun}"),
    }
}
