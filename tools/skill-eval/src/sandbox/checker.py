"""Runs checks, one after another, on functions that live in another process. Trusted: it holds the benchmark's text alone, and what
comes from the other process is rebuilt as plain values.

It says to the supervisor: c and a request for the program, p (passed), f (the check failed, and why), x (the program broke the rules),
u (the prompt or the test cannot be used).
"""

import builtins
import traceback

channel = Channel()


def say(tag, text=""):
    channel.send(tag + text.encode("utf-8", "replace"))


def leave(tag, text):
    """The last word, which no `except` of a check can take back."""
    say(tag, text)
    posix._exit(0)


def describe(error):
    return traceback.format_exception_only(type(error), error)[-1].strip()


def ask(*what):
    """What the program answers to `what`."""
    # A reply that was written before its question cannot know this number.
    number = int.from_bytes(posix.urandom(8), "big")
    try:
        request = encode((number, *what))
    except Exception as error:
        leave(b"u", f"the test passes what cannot be sent: {describe(error)}")
    channel.send(b"c" + request)
    try:
        told, *answer = decode(channel.receive())
        if type(told) is not int or told != number:
            raise ValueError("an answer to another call")
        return answer
    except Exception as error:
        leave(b"x", f"no valid answer: {describe(error)}")


def candidate(*args, **keywords):
    answer = ask(args, keywords)
    try:
        outcome, value, args_after, keywords_after = answer
        for old, new in zip(args, args_after):
            restore(old, new)
        for key, old in keywords.items():
            restore(old, keywords_after[key])
        if outcome == "raised":
            value = error_of(*value)
        elif outcome != "returned":
            raise ValueError("neither returned nor raised")
    except Exception as error:
        leave(b"x", f"no valid answer: {describe(error)}")
    if outcome == "raised":
        raise value
    return value


def restore(old, new):
    """Does to an argument what the call did to its copy."""
    if type(old) is not type(new):
        return
    if type(old) is list:
        old[:] = new
    elif type(old) in (dict, set):
        old.clear()
        old.update(new)


def error_of(names, args):
    """The nearest built-in exception; what ends an interpreter, such as SystemExit, is none."""
    known = (vars(builtins).get(name) for name in names)
    kind = next((kind for kind in known if isinstance(kind, type) and issubclass(kind, Exception)), Exception)
    try:
        return kind(*args)
    except TypeError:
        return Exception(*args)


def judge(program, head, test, name):
    space = {"__name__": "__main__"}
    try:
        exec(compile(head, "<prompt>", "exec"), space)
        # A check may also call the function by its name.
        space[name] = candidate
        exec(compile(test, "<test>", "exec"), space)
        check = space["check"]
    except BaseException as error:
        leave(b"u", f"its prompt and test are no program: {describe(error)}")
    if ask(program, name) != ["loaded"]:
        leave(b"x", "no valid answer: not loaded")
    try:
        check(candidate)
    except BaseException as error:
        say(b"f", describe(error))
    else:
        say(b"p")


while (task := channel.receive()) is not None:
    judge(*decode(task))
