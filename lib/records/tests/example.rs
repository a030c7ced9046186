//! The schemas of conversations as they are found in the wild, brought to one form.

use records::Message;
use records::dataset::{Example, InputFormat, Options, Row, Schema};
use serde_json::{Value, json};

fn row(value: Value) -> Row {
    let line = std::io::Cursor::new(value.to_string().into_bytes());
    Options::new()
        .format(InputFormat::Jsonl)
        .read(line)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
}

fn recognise(value: Value) -> Example {
    Example::recognise(&row(value), None).unwrap()
}

fn turns(example: &Example) -> Vec<(&str, &str)> {
    example
        .messages
        .iter()
        .map(|message| (message.role.as_str(), message.content.as_str()))
        .collect()
}

#[test]
fn messages_hold_text_or_lists_of_text_parts() {
    for content in [
        json!("hi"),
        json!([{"type": "text", "text": "hi"}]),
        json!([{"type": "text", "value": "h"}, "i"]),
    ] {
        let example = recognise(json!({"messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": content, "loss_weight": 0.0},
            {"role": "assistant", "content": "hello"},
        ]}));
        assert_eq!(example.schema, Schema::Messages);
        assert_eq!(
            (example.system(), example.prompt(), example.completion()),
            (Some("be kind"), Some("hi"), Some("hello"))
        );
        assert_eq!(example.messages[1].rest["loss_weight"], 0.0);
        assert_eq!(example.context().len(), 2);
    }
}

#[test]
fn an_assistant_turn_that_calls_tools_may_have_no_text() {
    let example = recognise(
        json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": null, "tool_calls": []}]}),
    );
    assert_eq!(example.completion(), Some(""));
}

#[test]
fn share_gpt_names_its_roles_otherwise() {
    let example = recognise(json!({"system": "s", "conversations": [
        {"from": "human", "value": "q"}, {"from": "function_call", "value": "f"}, {"from": "observation", "value": "o"}, {"from": "gpt", "value": "a"},
    ]}));
    assert_eq!(example.schema, Schema::Conversations);
    assert_eq!(
        turns(&example),
        [
            ("system", "s"),
            ("user", "q"),
            ("assistant", "f"),
            ("tool", "o"),
            ("assistant", "a")
        ]
    );
    assert_eq!(example.texts_of("assistant").collect::<Vec<_>>(), ["f", "a"]);
}

#[test]
fn instructions_take_their_input_after_a_line_end_and_ignore_an_empty_one() {
    let example =
        recognise(json!({"instruction": "Add.", "input": "", "output": "2", "history": [["a", "b"]], "system": ""}));
    assert_eq!(example.schema, Schema::Instruction);
    assert_eq!(
        turns(&example),
        [("user", "a"), ("assistant", "b"), ("user", "Add."), ("assistant", "2")]
    );
    let dolly = recognise(json!({"instruction": "Add.", "context": "1 + 1", "response": "2", "category": "x"}));
    assert_eq!((dolly.prompt(), dolly.completion()), (Some("Add.\n1 + 1"), Some("2")));
}

#[test]
fn prompts_and_completions_are_texts_or_turns_and_either_may_be_missing() {
    for value in [
        json!({"prompt": "q", "completion": "a"}),
        json!({"question": "q", "answer": "a"}),
        json!({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}),
    ] {
        let example = recognise(value);
        assert_eq!(example.schema, Schema::PromptCompletion);
        assert_eq!(turns(&example), [("user", "q"), ("assistant", "a")]);
    }
    assert_eq!(recognise(json!({"prompt": "q"})).completion(), None);
    let answer = recognise(json!({"completion": "a"}));
    assert_eq!((answer.prompt(), answer.completion()), (None, Some("a")));
}

#[test]
fn preferences_keep_the_chosen_answer_and_the_rejected_one_beside_it() {
    let turn = |from: &str, value: &str| json!({"from": from, "value": value});
    let whole = |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]);
    for value in [
        json!({"conversations": [turn("human", "q")], "chosen": turn("gpt", "good"), "rejected": turn("gpt", "bad")}),
        json!({"prompt": "q", "chosen": "good", "rejected": "bad"}),
        json!({"prompt": "q", "chosen": whole("good"), "rejected": whole("bad")}),
        json!({"chosen": whole("good"), "rejected": whole("bad")}),
    ] {
        let example = recognise(value);
        assert_eq!(example.schema, Schema::ChosenRejected);
        assert_eq!(turns(&example), [("user", "q"), ("assistant", "good")]);
        assert_eq!(
            example.rejected.as_ref().map(|message| message.content.as_str()),
            Some("bad")
        );
    }
}

#[test]
fn a_named_field_overrides_every_schema() {
    let row = row(json!({"messages": [], "goal": "g", "n": 1}));
    let example = Example::recognise(&row, Some("goal")).unwrap();
    assert_eq!(
        (example.schema, example.prompt(), example.messages.len()),
        (Schema::Field, Some("g"), 0)
    );
    assert!(
        Example::recognise(&row, Some("missing"))
            .unwrap_err()
            .to_string()
            .contains("`missing` is missing")
    );
    assert!(
        Example::recognise(&row, Some("n"))
            .unwrap_err()
            .to_string()
            .contains("expected a string")
    );
}

#[test]
fn text_alone_is_a_text_and_an_unknown_schema_names_the_keys() {
    let example = recognise(json!({"text": "t"}));
    assert_eq!(
        (example.schema, example.prompt(), example.completion()),
        (Schema::Text, Some("t"), None)
    );
    let error = Example::recognise(&row(json!({"goal": "secret", "target": null})), None)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("line 1: no text found") && error.ends_with("goal, target") && !error.contains("secret"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_a_turn_is_refused_by_key_and_never_quoted() {
    for value in [
        json!({"messages": "secret"}),
        json!({"messages": ["secret"]}),
        json!({"messages": [{"role": "user"}]}),
        json!({"messages": [{"content": "secret"}]}),
        json!({"messages": [{"role": 1, "content": "secret"}]}),
        json!({"messages": [{"role": "user", "content": null}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "secret"}]}]}),
        json!({"instruction": ["secret"]}),
        json!({"instruction": "x", "history": [["secret"]]}),
        json!({"prompt": 1}),
    ] {
        let error = Example::recognise(&row(value.clone()), None).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{value}: {error}");
    }
}

#[test]
fn a_message_is_written_as_it_was_read() {
    let message: Message = serde_json::from_value(json!({"role": "user", "content": "x", "name": "n"})).unwrap();
    assert_eq!(
        serde_json::to_value(&message).unwrap(),
        json!({"role": "user", "content": "x", "name": "n"})
    );
}
