"""Vocabulary of column and event names, in several languages."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl


def word_set(names: str) -> frozenset[str]:
    """Split a text at blanks into a set of names, as they are and without accents."""
    return frozenset((*names.split(), *_without_accents(names).split()))


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    plain = "".join(one for one in decomposed if not unicodedata.combining(one)) if not text.isascii() else text
    return unicodedata.normalize("NFC", plain)


RATING = word_set(
    "rating ratings rate rated stars star score scores grade grades overall vote votes satisfaction "
    "sentiment preference enjoyment engagement "
    "bewertung bewertungen wertung noten zensur sterne punktzahl zufriedenheit "
    "etoiles evaluation appreciation calificacion calificaciones puntuacion valoracion estrellas "
    "avaliacao classificacao estrelas pontuacao voto voti valutazione punteggio stelle "
    "beoordeling waardering cijfer sterren ocena oceny betyg karakter arvosana puan "
    "оценка рейтинг 评分 評分 评价 評価 평점 별점"
)
"""How much the user liked the item."""
LABEL = word_set(
    "label target y clicked click clicks purchased purchase bought buy converted conversion liked like likes applied installed "
    "booked responded response feedback recommended recommend helpful added saved favorited favourited isclick "
    "downloaded opened watched ordered reordered hired accepted favorite favourite fav thumbs upvoted subscribed won "
    "interested interessiert interesado interessado interessato zainteresowany "
    "gekauft geklickt bestellt gefallt angesehen gemerkt abonniert achete clique aime "
    "comprado clicado pulsado gustado comprou clicou curtiu acquistato cliccato ordinato piaciuto "
    "gekocht geklikt besteld kupiono kliknieto satinalindi "
    "купил куплено клик 购买 點擊 点击 購入 구매 클릭"
)
"""Whether the user took the item."""
DELETED = word_set("deleted supprime geloscht eliminado excluido apagado eliminato verwijderd silindi usuniety usunieto")
"""Whether a row was deleted, in systems that keep such rows."""
NEGATIVE = DELETED | word_set(
    "skipped skip disliked dislike hidden hide ignored rejected returned removed cancelled canceled refunded isskip "
    "return returns refund refunds cancellation complaint "
    "ubersprungen abgelehnt storniert retourniert refuse annule retourne rechazado cancelado devuelto "
    "iade ruckgabe retoure retouren storno stornierung reklamation remboursement annulation devolucion reembolso devolucao "
    "rimborso retour annulering "
    "rejeitado devolvido rifiutato annullato geweigerd geannuleerd"
)
"""Whether the user refused the item."""
EVENT = word_set(
    "event events action actions behavior behaviour interaction eventtype eventname actiontype shelf "
    "ereignis aktion evenement evento accion acao azione gebeurtenis zdarzenie الإجراء событие действие 事件 行为 行動"
)
"""What the user did."""
AMOUNT = word_set(
    "qty quantity amount paid spent spend revenue plays playcount playtime listens count cnt times units duration dwell "
    "watchtime watchratio watch minutes seconds msplayed hours progress completion percent listened played total "
    "renewals strength weight sales gmv payment tip subtotal progreso progresso "
    "secs viewtime views carts orders purchases bookings downloads shares saves "
    "miktar adet menge anzahl stuckzahl betrag umsatz dauer bezahlt quantite montant duree paye "
    "prolongations cantidad importe duracion pagado quantidade duracao pago quantita importo durata pagato "
    "aantal antal liczba bedrag duur betaald ilosc kwota wartosc nettowert warenwert количество сумма 数量 金额 金額 수량"
)
"""How much, or for how long."""
CONSEQUENCE = word_set("delay delays retard verspatung fee fees")
"""What an interaction led to, such as its costs; negative ones undo nothing."""
GRADE = word_set("nota notas note")
"""A rating in numbers up to 100, and also the text of a note, or an invoice."""
PRICE = word_set(
    "price prices preis preise prix precio precios preco precos prezzo prezzi cena prijs pris fiyat tarif tarifa cost costs "
    "salary gehalt sueldo rent miete цена 価格 价格 가격"
)
"""What something costs."""
TEXT = word_set(
    "review reviews comment comments reviewtext summary feedback text kommentar rezension commentaire avis "
    "message letter reply notes nachricht anmerkung mensaje antwort reponse respuesta "
    "comentario resena opinion recensione commento recensie komentarz "
    "comentarios observacao observacoes observacion observaciones remarques отзыв комментарий ответ 评论 コメント 리뷰"
)
"""What the user wrote about the item."""

STATE = word_set(
    "status state stage estado statut statuto stato statusu zustand stav staat situacao situacion durum "
    "статус состояние 状態 状态 상태"
)
"""State of a row that may change after the interaction, such as an order that was refunded; also a part of a country."""
PLACE = word_set("state estado stato staat stage")
"""Those that may name a place."""

_BOOLEAN_PAIRS = (
    *("true false", "yes no", "y n", "t f", "ja nein", "j n", "wahr falsch", "oui non", "o n", "vrai faux", "si no", "sí no"),
    *("s n", "verdadero falso", "sim não", "sim nao", "verdadeiro falso", "vero falso", "ja nee", "waar onwaar", "ja nej"),
    *(
        "t n",
        "有 無",
        "sì no",
        "tak nie",
        "e h",
        "ano ne",
        "igen nem",
        "evet hayır",
        "да нет",
        "是 否",
        "はい いいえ",
        "예 아니요",
    ),
)
BOOLEAN_WORDS = frozenset(frozenset(pair.split()) for pair in _BOOLEAN_PAIRS)
"""Pairs of words for true and false, in lower case."""
TRUE_WORDS = frozenset(pair.split()[0] for pair in _BOOLEAN_PAIRS)
"""Those for true."""
TRUE_MARKS = TRUE_WORDS | word_set("1 x ✓ ✔")
"""Those for true where nothing is written for false."""

_KNOWN_BEFORE_WORDS = word_set("previous prev last past history before avg average mean expected prior item mode so far since")
_CONTEXT_WORDS = word_set(
    "temperature distance age latitude longitude lat lon lng "
    "hour weekday weekend workday weekdays month day daytime daypart quarter season holiday isweekend isholiday ishome "
    "mobile app device os web online logged loggedin member subscriber premium new returning first "
    "position rank slot page depth screen people guests persons party children adults nights rooms "
    "stunde wochentag wochenende monat tag feiertag heure jour mois weekdag hora dia mes giorno mese ora"
)
_OUTCOME_WORDS = RATING | LABEL | NEGATIVE | EVENT | AMOUNT | TEXT | CONSEQUENCE


_EASTERN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # scripts whose words are not apart: 顧客ID
_WORD_BORDERS = rf"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[{_EASTERN}])(?=[A-Za-z])|(?<=[A-Za-z])(?=[{_EASTERN}])"


def words(name: str) -> tuple[str, ...]:
    """Split a column name into words, in lower case and without accents.

    `unixReviewTime` and `unix_review_time` have the same three.
    """
    apart = re.sub(_WORD_BORDERS, " ", _without_accents(name))
    return tuple(word.lower() for word in re.split(r"[\W_]+", apart) if word)


def outcome_word(name: str, among: frozenset[str] = _OUTCOME_WORDS) -> str:
    """Return the word of a name that denotes an outcome, if any.

    Args:
        name: of a column.
        among: words that denote an outcome; default all.

    Returns:
        The word; empty where there is none, or another word says that the value was known before, such as "previous". A letter
        denotes something only by itself: `y` is a label, and `x&y` is not.
    """
    parts = words(name)
    if _KNOWN_BEFORE_WORDS & set(words(name.rpartition(".")[2])):  # a nested object may be called history
        return ""
    return next((word for word in (*(part for part in parts if len(part) > 1), "".join(parts)) if word in among), "")


def known_before(name: str) -> bool:
    """Return whether a name denotes something known in advance: an hour, a device."""
    return bool((_KNOWN_BEFORE_WORDS | _CONTEXT_WORDS) & {*words(name), "".join(words(name))})


_EVENT_WEIGHTS = {
    1.0: word_set(
        "view viewed click clicked pv visit browse detail open opened play played listen listened watch watched read search "
        "to-read currently-reading pageview viewitem started start "
        "angesehen gesehen geklickt ansicht aufruf vu vue consulte "
        "consultation clic clique visto vista visita visualizacion clicado visualizado visualizacao "
        "visualizzazione bekeken geklikt "
        "wyswietlenie مشاهدة просмотр 浏览 閲覧 クリック 点击 조회 클릭"
    ),
    2.0: word_set(
        "like liked fav favorite favourite favorited save saved wishlist bookmark share shared follow rate rated review "
        "reply replied comment commented zapis ocena حفظ interested shortlist shortlisted complete completed finish finished "
        "repeat"
    ),
    3.0: word_set(
        "cart basket addtocart add warenkorb panier carrito carrinho carrello winkelwagen корзина 加购 カート 장바구니"
    ),
    5.0: word_set(
        "purchase purchased buy bought order ordered transaction checkout pay paid install installed subscribe subscribed "
        "apply applied application hire hired accept accepted book booked booking conversion convert converted download yes "
        "sale sold vente venta verkauf vendita venda sprzedaz "
        "gekauft bestellt kauf bestellung achete achat commande comprado compra pedido comprou acquistato acquisto gekocht "
        "שולם تقديم شراء купил покупка 购买 購入 注文 구매 주문 "
        "attended present presente presenza anwesend aanwezig obecny närvarande "
        "paid delivered shipped fulfilled bezahlt geliefert livre entregado entregue доставлен оплачен "
        "ja oui si sim tak ano igen evet да 是 はい 예 wahr vrai verdadero verdadeiro vero waar"
    ),
}
_NOT_TAKEN_WORDS = word_set(
    "impression impressions impress shown show display displayed expose exposure skip skipped dislike disliked hide hidden "
    "ignore ignored reject rejected dismiss dismissed no decline declined "
    "absent absence noshow assente ausente abwesend nieobecny frånvarande afwezig "
    "angezeigt abgelehnt affiche mostrado rechazado mostrato rifiutato "
    "nein non nao nee nej nie ne nem hayır нет 否 いいえ 아니요 falsch faux falso onwaar"
)
_UNDO_WORDS = word_set(
    "remove removed delete deleted unlike unlist return returned refund refunded cancel cancelled canceled block report "
    "failed failure void voided chargeback removeu eliminado retirado отменён возвращён "
    "retoure retourniert rucksendung storno storniert erstattung retour retourne "
    "rembourse annule iptal annulation devolucion devuelto "
    "reembolso cancelado devolucao devolvido reso rimborso annullato zwrot "
    "disdetta disdetto בוטל возврат отмена 返品 退货 退款 取消 キャンセル 반품 취소"
)


_PARTLY_WORDS = word_set(
    "partial partially partly teilweise partiellement parcialmente parziale czesciowo"
)  # the rest was kept
_REJECTED_WORDS = word_set("reject rejected decline declined refused abgelehnt rechazado refuse recusado odrzucono отклонён")


@dataclass(frozen=True, slots=True)
class EventRule:
    """A proposal for what each event counts.

    Attributes:
        weights: by name.
        left_out: names of events that undo a previous event.
        not_taken: names of events where an item was shown and not taken.
        unknown: names among the weights that the vocabulary lacks; they count 1.
        missing: how rows without a name count; empty where there are none.
    """

    weights: dict[str, float]
    left_out: tuple[str, ...]
    not_taken: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: str = ""


def known_events(names: Iterable[str]) -> list[str]:
    """Return the names that are in the vocabulary of events."""
    return [name for name in names if _event_meaning(name) is not None]


def event_rule(names: pl.Series, *, state: bool = False) -> EventRule:
    """Propose what each event of a column counts.

    Args:
        names: String [n].
        state: whether they are states of a row, so that what was rejected later had been chosen before.
    """
    meanings = {name: _event_meaning(name) for name in names.unique().sort()}
    if state and 1.0 not in meanings.values():  # of views and other events, rejections are such, too
        meanings |= {name: 1.0 for name in meanings if _REJECTED_WORDS & set(words(name))}
    rule = _rule_of_meanings(meanings)
    return rule if rule.weights else EventRule(dict.fromkeys(meanings, 1.0), (), (), tuple(meanings))  # something must count


def flag_rule(names: Sequence[str]) -> EventRule:
    """Propose weights for columns of truth values, each of one event.

    A row in which nothing did was shown and not taken, unless all that may have happened is a reaction to what was taken
    anyway, such as a like or a skip.

    Args:
        names: of the columns.
    """
    refused = {name: "not taken" for name in names if outcome_word(name, NEGATIVE)}
    rule = _rule_of_meanings({name: _event_meaning(name) or refused.get(name) for name in names})
    reactions = len(rule.weights) < len(names) and set(rule.weights.values()) <= {_LIKE_WEIGHT}
    return replace(rule, missing="taken" if reactions else "not taken")


def names_event(name: str) -> bool:
    """Return whether a name says nothing but what happened, such as `add_to_cart`."""
    parts = [part for part in words(name) if part not in _COUNT_WORDS]
    return bool(parts) and all(part in ("to", "was", "is", "has") or isinstance(_event_meaning(part), float) for part in parts)


def names_reaction(name: str) -> bool:
    """Return whether a name is a reaction to a taken item, such as `completed`."""
    return _event_meaning(name) == _LIKE_WEIGHT


def counts_events(name: str) -> bool:
    """Return whether a name says how often something happened, such as `views`."""
    return names_event(name) and (name.lower().endswith("s") or bool(_COUNT_WORDS & set(words(name))))


def accumulates(name: str, side: str, *, fractions: bool) -> bool:
    """Return whether a name says what interactions add up to.

    Such as `orders_count`, `avg_rating`, or `total_spent` of a user.

    Args:
        name: column of numbers of the users or the items table.
        side: user or item.
        fractions: whether the numbers have fractions, as mean ratings have.
    """
    parts = set(words(name))
    averaged = bool(parts & (RATING | GRADE)) and (fractions or bool(parts & _AVERAGE_WORDS))
    return (
        averaged
        or counts_events(name)
        or bool(parts & TEXT - RATING - GRADE)
        or (side == "user" and bool(parts & _TOTAL_WORDS))
    )


def names_person(name: str) -> bool:
    """Return whether a column of the users table holds the names of people."""
    return not (parts := set(words(name)) - _PERSON_ASPECT_WORDS) - _PERSON_WORDS and bool(parts)


_COUNT_WORDS = word_set("n num nb no number count counts cnt of total anzahl nombre")
_TOTAL_WORDS = word_set("total lifetime cumul cumulative ever toplam gesamt")
_AVERAGE_WORDS = word_set("avg average mean moyenne media durchschnitt durchschnittlich gemiddelde snitt srednia")
_PERSON_ASPECT_WORDS = word_set("full first last middle family given display user customer client reviewer member guest")
_PERSON_WORDS = word_set(
    "name nickname fullname firstname lastname surname nom "
    "prenom nombre apellido apellidos completo nome cognome sobrenome vorname nachname naam voornaam achternaam imie nazwisko "
    "ad soyad adi soyadi fornamn efternamn имя фамилия 氏名 姓名 名前 이름"
)
_LIKE_WEIGHT = 2.0


def _rule_of_meanings(meanings: Mapping[str, float | str | None]) -> EventRule:
    weights = {name: meaning for name, meaning in meanings.items() if isinstance(meaning, float)}
    unknown = tuple(name for name, meaning in meanings.items() if meaning is None)
    weights |= dict.fromkeys(unknown, 1.0)
    left_out, not_taken = (
        tuple(name for name, meaning in meanings.items() if meaning == kind) for kind in ("left out", "not taken")
    )
    return EventRule(dict(sorted(weights.items(), key=lambda one: one[1])), left_out, not_taken, unknown)


def _event_meaning(name: str) -> float | str | None:
    parts = {*words(name), name.strip().lower(), "".join(words(name))}
    parts |= {part.removesuffix("s") for part in parts}
    if parts & _UNDO_WORDS:
        return "left out" if not parts & _PARTLY_WORDS else 5.0
    if parts & _NOT_TAKEN_WORDS:
        return "not taken"
    return next((weight for weight, names in sorted(_EVENT_WEIGHTS.items(), reverse=True) if parts & names), None)


# Names of id columns and of files.

_ID_WORDS = {
    "user": word_set(
        "user users userid uid customer customerid cust client clientid visitor visitorid member memberid person personid "
        "reader account profile reviewer reviewerid shopper buyer listener viewer subscriber participant attendee borrower "
        "username patient patientid student studentid player playerid passenger donor candidate applicant "
        "visitante visiteur besucher odwiedzajacy lyssnare zuhorer auditeur oyente ouvinte alumno aluno eleve schuler debiteur "
        "lecteur lector leitor leser donateur donante spender abonado assinante bewerber посетитель "
        "kunde kunden kundennummer kundennr kundenid kd mitglied mitglieds benutzer nutzer utilisateur "
        "adherent usuario cliente clienti utente socio klant gebruiker "
        "πελατης χρηστης לקוח משתמש المستخدم العميل klient uzytkownik kund anvandare bruger asiakas musteri kullanici "
        "пользователь пользователя клиент клиента покупатель покупателя "
        "用户 客户 会员 會員 顧客 会員 利用者 ユーザー ユーザ 사용자 고객 회원"
    ),
    "item": word_set(
        "item items itemid iid movie movieid film filmid product productid sku asin isbn article articleid book bookid "
        "track trackid song songid artist artistid album game gameid appid business businessid video videoid news newsid "
        "recipe recipeid restaurant course listing offer content contentid show anime animeid job "
        "goods noticia material materialno post postid document docid episode podcast "
        "artikel artikelnummer artikelnr artikelid produkt produktnr produktid produktnummer buch produit producto articulo "
        "livre libro prodotto articolo produto artigo artikelcode towar vara tuote urun "
        "товар товара продукт продукта фильм фильма книга книги 商品 物品 产品 產品 品目 製品 作品 アイテム 상품 제품 아이템"
    ),
}
_TABLE_WORDS = {
    "interactions": word_set(
        "interactions interaction ratings rating events event clicks click clickstream views transactions transaction orders "
        "purchases sales plays listens history reviews behavior behaviour sessions logs log activity feedback data "
        "visits bookings loans rentals borrowings checkouts checkins scrobbles "
        "bewertungen bestellungen ausleihen kaufe buchungen besuche commandes achats pedidos compras ordini acquisti"
    ),
    "items": word_set(
        "items item movies movie films film products product articles article books book catalog catalogue tracks songs "
        "artists games businesses business videos news recipes anime courses jobs metadata meta "
        "classes restaurants hotels venues podcasts apps "
        "artikel produkte filme bucher livres produits productos libros peliculas prodotti libri"
    ),
    "users": word_set(
        "users user people persons person customers customer members visitors clients readers accounts "
        "viewers patrons students patients subscribers "
        "kunden nutzer benutzer mitglieder leser utilisateurs usuarios clientes utenti"
    ),
}
_FALLBACK_ID_WORDS = {  # of ids, where no name says user or item; the first that fits
    "user": (
        word_set(
            "email mail mailaddress login cookie cookieid card cardno karte karten kundenkarte kundenkarten karty karta "
            "tarjeta household householdid msisdn family famiglia famille familie familia"
        ),
        word_set("device deviceid guest guestid session sessionid visit visitid"),
        word_set(
            "basket basketid cart cartid order orderid receipt invoice bestellung bestellnr beleg belegnr bon "
            "заказ заказа чек чека 订单 注文 주문"
        ),
    ),
    "item": (word_set("ean gtin upc barcode pzn page pageid url uri link path doc code title name"),),
}
_DESCRIPTION_WORDS = word_set(
    "note notes comment comments remark remarks message agent type group segment category status rating price cost count "
    "notiz bemerkung kommentar gruppe note remarque commentaire nota observacion observacao"
)
"""Words of columns that describe a user or an item, such as the notes of a customer."""
_ID_ENDING = re.compile(
    r"(id|nr\.?|nummer|number|no\.?|num|code|sku|asin|isbn|uuid|guid|key|番号|コード|编号|编码|번호|код|номер)$"
)

_ID_PREFIXES = word_set("id cod codigo code codice kod ref nr no num nummer number sku uuid guid key код номер")


def fallback_id_column(columns: Iterable[str], side: str) -> str | None:
    """Return the column to use as ids where no name says user or item.

    Sessions, for instance. None where none or several fit.

    Args:
        columns: names.
        side: user or item.
    """
    found = (_only_match(columns, known) for known in _FALLBACK_ID_WORDS[side])
    return next((name for name in found if name is not None), None)


def names_id(name: str) -> bool:
    """Return whether a name ends or begins like that of an id, such as `id_product`."""
    return bool(_ID_ENDING.search(name.strip().lower()) or _ID_PREFIXES & set(words(name)[:1]))


def names_visit(name: str) -> bool:
    """Return whether a name denotes the number of a session, order or receipt."""
    return names_id(name) and any(_only_match([name], names) for names in _FALLBACK_ID_WORDS["user"][1:])


def id_column(columns: Iterable[str], side: str) -> str | None:
    """Return the column of ids by its name; None where none or several fit.

    Args:
        columns: names.
        side: user or item.
    """
    return _only_match(columns, _ID_WORDS[side])


def _only_match(columns: Iterable[str], known: frozenset[str]) -> str | None:
    """Return the only column with a known word, or the only such that ends like an id."""
    eastern = [word for word in known if re.search(f"[{_EASTERN}]", word)]  # compounds such as 顧客番号 are not apart
    fitting = [name for name in columns if known & _spellings(name) or any(one in name for one in eastern)]
    with_id = [name for name in fitting if names_id(name)]
    fitting = [name for name in fitting if name in with_id or not _DESCRIPTION_WORDS & set(words(name))]
    return next((names[0] for names in (with_id, fitting) if len(names) == 1), None)


def _spellings(name: str) -> set[str]:
    """Return the words of a name, and all of them as one.

    Compounds such as KARTENNR are there also without their word for numbers.
    """
    parts = {*words(name), "".join(words(name))}
    return parts | {re.sub("(nr|nummer|number|num|no)$", "", part) for part in parts}


def table_of_file(name: str) -> str | None:
    """Return which table a file holds by the words of its name; the last word decides.

    Args:
        name: of the file, without its folder.
    """
    found = (table for word in reversed(words(name)) for table, known in _TABLE_WORDS.items() if word in known)
    bought = {"order", "orders", "basket", "cart", "invoice", "receipt", "purchase", "transaction"} & set(words(name))
    return "interactions" if bought else next(found, None)


HEADING = word_set("title titel titre titulo titolo tytul название заголовок 标题 標題 タイトル 제목")
"""Title of an item, or of what a user wrote about it."""
_TITLE_WORDS = (
    HEADING,
    word_set("name naam nom nombre nome nazwa namn navn имя наименование 名称 名稱 名前 이름"),
    word_set("label bezeichnung designation"),
    word_set("headline"),
)
"""Words in names of columns that hold titles, the best first."""


def title_of(texts: Iterable[str]) -> str | None:
    """Return the column that holds titles, by its name, if there is one.

    Args:
        texts: names of the columns of text, without that of the ids.
    """
    names = list(texts)
    return next((name for known in _TITLE_WORDS for name in names if known & set(words(name))), None)
