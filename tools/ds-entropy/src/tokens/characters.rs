//! Character classes as the reference implementations see them, in one table of flags per code point.
//!
//! Python's `str.isspace`, `\w` and `\d` and the regular expressions of byte-level tokenizers disagree with `char`'s own
//! methods (U+001C is a space to Python only; a combining mark is alphanumeric to Rust only), so each is spelled out.

use std::sync::LazyLock;

const LETTER: u8 = 1;
const NUMBER: u8 = 2;
const DECIMAL: u8 = 4;
const WHITE: u8 = 8;
const PYTHON_SPACE: u8 = 16;

static FLAGS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut flags = vec![0u8; 0x11_0000];
    for (pattern, flag) in [
        (r"\p{L}", LETTER),
        (r"\p{N}", NUMBER),
        (r"\p{Nd}", DECIMAL),
        (r"\p{White_Space}", WHITE | PYTHON_SPACE),
    ] {
        let hir = regex_syntax::parse(pattern).expect("a class of the Unicode standard");
        let regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class)) = hir.kind() else {
            unreachable!("a Unicode property is a class of characters");
        };
        for range in class.ranges() {
            for flags in &mut flags[range.start() as usize..=range.end() as usize] {
                *flags |= flag;
            }
        }
    }
    for separator in &mut flags[0x1c..=0x1f] {
        *separator |= PYTHON_SPACE;
    }
    flags
});

fn has(character: char, flag: u8) -> bool {
    FLAGS[character as usize] & flag != 0
}

/// `\p{L}`.
pub fn is_letter(character: char) -> bool {
    has(character, LETTER)
}

/// `\p{N}`.
pub fn is_number(character: char) -> bool {
    has(character, NUMBER)
}

/// `\s` of Rust's and Oniguruma's regular expressions: the Unicode property `White_Space`.
pub fn is_white(character: char) -> bool {
    has(character, WHITE)
}

/// `str.isspace()` and `\s` of Python: `White_Space` and the four information separators.
pub fn is_python_space(character: char) -> bool {
    has(character, PYTHON_SPACE)
}

/// `\d` of Python.
pub fn is_python_digit(character: char) -> bool {
    has(character, DECIMAL)
}

/// `\w` of Python: letters, numbers of every kind and the underscore, but no combining marks.
pub fn is_python_word(character: char) -> bool {
    character == '_' || has(character, LETTER | NUMBER)
}
