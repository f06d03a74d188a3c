from lib.ops.text import text_table


def test_columns_are_aligned():
    rows = [["class", "easy", "hard"], ["Car", 9.5, "-"], [], ["Van", "10.25"]]
    assert text_table(rows).split("\n") == ["class   easy  hard", "Car      9.5     -", "", "Van    10.25"]
    assert text_table([]) == ""
