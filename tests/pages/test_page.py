"""Pages in one file: their policy, and data in them that cannot end or run anything."""

import json
import re
from base64 import b64encode
from hashlib import sha256

from noise import explained

from relprop.pages.page import data_block, is_own_page, page, safe


def test_a_page_allows_its_own_script_alone():
    whole = page(
        "relprop.text",
        "text.html",
        "",
        ["text.js"],
        **dict.fromkeys(["facts", "text", "ramp", "hint", "matrix", "table", "strongest"], ""),
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', whole)[1]
    [script] = re.findall(r"<script>(.*?)</script>", whole, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        f"script-src 'sha256-{digest}'",
    ]
    assert whole.index(policy) < whole.index("<style")


def test_data_come_back_and_no_text_in_them_is_html():
    data = {"a": ["</script><script>alert(1)</script>", "<!--", 'γ"\\'], "b": 0.25}
    block = data_block("data", data)
    start, end = '<script type="application/json" id="data">', "</script>"
    inside = block.removeprefix(start).removesuffix(end)
    assert block == start + inside + end
    assert "<" not in inside
    assert json.loads(inside) == data


def test_a_page_that_relprop_wrote_is_known(tmp_path):
    explained(1)[0].save(tmp_path / "own.html", title="<" * 5000)
    (tmp_path / "other.html").write_text("<p>mine</p>")
    assert is_own_page(tmp_path / "own.html")
    assert not is_own_page(tmp_path / "other.html")
    assert not is_own_page(tmp_path / "none.html")


def test_a_text_is_no_html_and_hides_nothing():
    assert safe('<b>"\u202e') == "&lt;b&gt;&quot;\\u202e"
