"""Whether the profile of Fast DDS that large clouds need is active, as far as a process can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy_runner.transport import LARGE_CLOUD_BYTES, ProfileError, segment_bytes, transport_of

CONFIG = Path(__file__).parents[2] / "config"
FAST_DDS = "rmw_fastrtps_cpp"
VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
MIB = 2**20


@pytest.fixture
def profiles(tmp_path):
    """A copy of our profile in which some text is replaced."""

    def write(old="", new=""):
        text = (CONFIG / "fastdds_shm.xml").read_text()
        assert old in text
        path = tmp_path / "profiles.xml"
        path.write_text(text.replace(old, new))
        return path

    return write


@pytest.mark.parametrize("name", ["fastdds_shm.xml", "fastdds_shm_network.xml"])
def test_our_profiles_hold_three_clouds_of_a_depth_camera(name):
    assert LARGE_CLOUD_BYTES == 9_830_400
    assert segment_bytes(CONFIG / name) == 32 * MIB >= 3 * LARGE_CLOUD_BYTES


@pytest.mark.parametrize("variable", [VARIABLE, "FASTRTPS_DEFAULT_PROFILES_FILE"])
def test_a_profile_is_active_where_the_variable_names_it(variable):
    transport = transport_of(FAST_DDS, {variable: str(CONFIG / "fastdds_shm.xml")})
    assert transport.large_messages
    assert transport.found.endswith("fastdds_shm.xml: 32 MiB of shared memory")
    assert transport.warning == ""


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}])
def test_without_a_profile_the_warning_says_what_to_set(environment):
    transport = transport_of(FAST_DDS, environment)
    assert transport.large_messages is False
    assert "FASTDDS_DEFAULT_PROFILES_FILE is not set" in transport.warning
    assert "config/fastdds_shm.xml in every process" in transport.warning


def test_of_other_middleware_nothing_is_known_and_nothing_is_warned_of():
    transport = transport_of("rmw_cyclonedds_cpp", {})
    assert transport.large_messages is None
    assert "rmw_cyclonedds_cpp: nothing is known" in transport.found
    assert transport.warning == ""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<useBuiltinTransports>false", "<useBuiltinTransports>true", "useBuiltinTransports is not false"),
        ("<segment_size>33554432", "<segment_size>16777216", "segment_size is 16777216, at least 19660800"),
        ("<segment_size>33554432</segment_size>", "", "segment_size is 0"),
        ("<segment_size>33554432", "<segment_size>32 MiB", "expected a number of bytes, got '32 MiB'"),
        ("<type>SHM", "<type>UDPv4", "no transport of type SHM"),
        ("          <transport_id>shm</transport_id>\n", "", "no transport of type SHM"),
        ('is_default_profile="true"', "", "no participant has is_default_profile"),
        ("</dds>", "", "no XML"),
    ],
)
def test_a_profile_that_does_not_carry_large_clouds_is_explained(profiles, old, new, reason):
    path = profiles(old, new)
    transport = transport_of(FAST_DDS, {VARIABLE: str(path)})
    assert transport.large_messages is False
    assert f"{VARIABLE}: {path}: " in transport.warning
    assert reason in transport.warning


def test_a_file_that_is_not_there_is_named(tmp_path):
    transport = transport_of(FAST_DDS, {VARIABLE: str(tmp_path / "nothing.xml")})
    assert "nothing.xml: No such file or directory" in transport.warning


def test_profiles_of_older_versions_have_another_namespace(profiles):
    old = "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"
    assert segment_bytes(profiles('"http://www.eprosima.com"', f'"{old}"')) == 32 * MIB


def test_how_large_is_a_matter_of_the_clouds(profiles):
    path = profiles("<segment_size>33554432", "<segment_size>16777216")
    assert segment_bytes(path, message_bytes=1_600_000) == 16 * MIB
    with pytest.raises(ProfileError, match="at least 19660800 are needed"):
        segment_bytes(path)
