"""HTML pages: texts are escaped once, tables keep their shape, pages load nothing."""

import re

from temporal_zoo._support.html import Html, bullets, details, element, figure, page, picture, table


def test_text_is_escaped_once_and_markup_is_not():
    assert element("p", "a < b", element("b", "&")) == "<p>a &lt; b<b>&amp;</b></p>"


def test_attributes_are_escaped_and_empty_ones_are_left_out():
    written = element("div", class_="", title='"x"', open=True, hidden=False)
    assert written == '<div title="&quot;x&quot;" open></div>'


def test_columns_of_numbers_are_aligned_to_the_right():
    markup = table(("mixer", "time"), [("s4d", "1.5 ms ± 0.1"), ("attn", "-"), ("mamba", "−3")])
    assert '<th>mixer</th><th class="number">time</th>' in markup
    assert markup.count('<td class="number">') == 3


def test_the_last_cell_of_a_short_row_spans_the_columns_that_are_left():
    markup = table(("a", "b", "c"), [("x", "1", "2"), ("x", "out of <memory>")], kinds=("", "failed"))
    assert markup.count('class="number"') == 4  # names and numbers of two columns
    assert '<tr class="failed"><td>x</td><td colspan="2">out of &lt;memory&gt;</td></tr>' in markup


def test_a_line_break_in_the_name_of_a_column_stays_one():
    assert "<th>a &lt;<br>b</th>" in table(("a <\nb",), [("x",)])


def test_lists_and_details():
    assert bullets(["a", "b"]) == "<ul><li>a</li><li>b</li></ul>"
    assert bullets([]) == ""
    assert details("more", "text", is_open=True) == "<details open><summary>more</summary>text</details>"


def test_a_page_is_one_file_that_fits_a_phone():
    written = page("Costs & gains", element("h1", "Costs"), figure(picture(b"png", 'a "map"'), "what it shows"))
    assert "<title>Costs &amp; gains</title>" in written
    assert 'name="viewport"' in written
    assert "<body><h1>" in written
    assert re.search(r"^body \{", written, re.MULTILINE)
    assert 'alt="a &quot;map&quot;"' in written
    assert not re.findall(r'(?:src|href)="(?!data:)|url\(|@import', written)


def test_markup_stays_markup_when_it_is_joined_with_text():
    assert isinstance(element("p", Html("<b>x</b>")), Html)
    assert "<b>x</b>" in element("p", Html("<b>x</b>"))
