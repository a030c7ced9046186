"""Record streams are checked as the tools check them."""

import io

import flowlens
from flowlens.stream import scalars

from . import Case, needs

BEGIN = '{"type":"begin","schema":"flowlens/1","tool":"x","version":"0"}\n'


def end(count: int, status: str = "complete") -> str:
    return f'{{"type":"end","row_count":{count},"status":"{status}"}}\n'


def read(text: str, kind: object = None) -> list:
    return flowlens.records(io.StringIO(text), kind)


class Records(Case):
    def test_streams_one_after_another_and_plain_rows_are_read(self) -> None:
        stream = BEGIN + '{"type":"layer","c":1}\n' + end(1)
        self.assertEqual(read(stream + stream), [{"type": "layer", "c": 1}] * 2)
        self.assertEqual(read(stream, "stack"), [])
        self.assertEqual(read('{"a":1}\n\n{"a":2}'), [{"a": 1}, {"a": 2}])

    def test_what_the_format_refuses_is_refused(self) -> None:
        row = '{"type":"layer"}\n'
        for text in (
            "", BEGIN + row, BEGIN + row + end(2), BEGIN + row + end(1) + row, BEGIN + BEGIN, BEGIN + row + end(1, "partial"),
            BEGIN.replace("flowlens/1", "flowlens/2") + end(0), BEGIN.replace("flowlens/1", "flowlens/10") + end(0), '{"a":1,"a":2}', '{"a":NaN}', "[1]", "{",
            '{"a":{"b":1,"b":2}}', "[" * 5000,
        ):
            with self.subTest(text[:60]), self.assertRaises(flowlens.Refused):
                read(text)

    def test_the_numbers_of_a_row_have_their_paths_for_names(self) -> None:
        row = {"step": 3, "aux": {"vcl": {"c_k": 0.5, "sign": "spread"}}, "ok": True}
        self.assertEqual(dict(scalars(row)), {"step": 3, "aux/vcl/c_k": 0.5})

    @needs("pandas")
    def test_a_frame_has_a_column_for_each_key(self) -> None:
        path = self.at / "x.jsonl"
        path.write_text(BEGIN + '{"type":"layer","layer_index":0,"c":1}\n{"type":"stack","d":1}\n' + end(2))
        frame = flowlens.frame(path, "layer")
        self.assertEqual((list(frame.columns), len(frame)), (["type", "layer_index", "c"], 1))
