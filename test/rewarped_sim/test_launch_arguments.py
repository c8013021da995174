import pytest

from rewarped_sim.launch_arguments import number, numbers, refuse_unknown_arguments, whole_number


def test_a_mistyped_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown launch argument 'epoch'; did you mean 'epochs'"):
        refuse_unknown_arguments(["task:=x", "epoch:=3"], ["task", "epochs"])


def test_known_names_pass_also_those_of_every_launch():
    refuse_unknown_arguments(["task:=a:=b", "sigterm_timeout:=9"], ["task"])


def test_numbers_are_read():
    assert whole_number("epochs", "12") == 12
    assert number("factor", "0.5") == 0.5
    assert numbers("place", "1 -2.5  3e-1", 3) == [1.0, -2.5, 0.3]


@pytest.mark.parametrize("text", ["1 2", "1 2 3 4", "", "1,2,3"])
def test_another_number_of_numbers_is_refused_by_name(text):
    with pytest.raises(ValueError, match=f"'place': expected 3 numbers, got '{text}'"):
        numbers("place", text, 3)


@pytest.mark.parametrize(("read", "text"), [(whole_number, "1.5"), (whole_number, ""), (number, "fast")])
def test_text_where_a_number_belongs_is_refused_by_name(read, text):
    with pytest.raises(ValueError, match=f"'speed': expected a .*number, got '{text}'"):
        read("speed", text)
