"""Parts of a page: text is escaped, tables name their cells."""

from mlf_jax.analysis import page


def test_text_is_escaped_everywhere():
  nasty = '<b> & "quotes"'
  escaped = '&lt;b&gt; &amp; &quot;quotes&quot;'
  for text in (
    page.paragraph(nasty),
    page.table((nasty,), [(nasty,)], nasty),
    page.picture(b'', b'', (1, 1), nasty, nasty),
    page.document(nasty, nasty, [('a', nasty, '')]),
  ):
    assert escaped in text and '<b>' not in text


def test_a_sentence_begins_and_ends_like_one():
  assert page.sentence(' nothing fires ') == '<p>Nothing fires.</p>'
  assert page.sentence('Done.') == '<p>Done.</p>'


def test_a_table_scrolls_and_names_rows_and_columns():
  text = page.table(('layer', 'rate'), [('units1', 0.5)], 'by layer')
  assert '<div class="scroll" tabindex="0" role="region"' in text
  assert '<caption>By layer</caption>' in text
  assert '<th scope="col">rate</th>' in text
  assert '<th scope="row">units1</th><td>0.5</td>' in text


def test_nothing_to_show_takes_no_place():
  assert page.figures([]) == ''
