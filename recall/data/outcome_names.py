"""Names by which people call columns that are known only once an interaction has happened."""

import re
import unicodedata


def named(names: str) -> frozenset[str]:
    """The names in a text with blanks between them."""
    return frozenset(names.split())


RATING = named(
    "rating ratings rate rated stars star score scores grade grades overall vote votes satisfaction "
    "sentiment preference enjoyment engagement "
    "bewertung bewertungen wertung noten zensur sterne punktzahl zufriedenheit "
    "etoiles evaluation appreciation calificacion calificaciones puntuacion valoracion estrellas "
    "avaliacao classificacao estrelas pontuacao voto voti valutazione punteggio stelle "
    "beoordeling waardering cijfer sterren ocena oceny betyg karakter arvosana puan "
    "оценка рейтинг 评分 評分 评价 評価 평점 별점"
)
"""How much the user liked the item."""
LABEL = named(
    "label target y clicked click clicks purchased purchase bought buy converted conversion liked like likes applied installed "
    "booked responded response feedback recommended recommend helpful added saved favorited favourited isclick "
    "downloaded opened watched ordered reordered hired accepted favorite favourite fav thumbs upvoted subscribed won "
    "gekauft geklickt bestellt gefallt angesehen gemerkt abonniert achete clique aime "
    "comprado clicado pulsado gustado comprou clicou curtiu acquistato cliccato ordinato piaciuto "
    "gekocht geklikt besteld kupiono kliknieto satinalindi "
    "купил куплено клик 购买 點擊 点击 購入 구매 클릭"
)
"""Whether the user took it."""
NEGATIVE = named(
    "skipped skip disliked dislike hidden hide ignored rejected returned removed cancelled canceled refunded isskip "
    "ubersprungen abgelehnt storniert retourniert refuse annule retourne rechazado cancelado devuelto "
    "rejeitado devolvido rifiutato annullato geweigerd geannuleerd"
)
"""Whether the user refused it."""
EVENT = named(
    "event events action actions behavior behaviour interaction eventtype eventname actiontype shelf "
    "ereignis aktion evenement evento accion acao azione gebeurtenis zdarzenie событие действие 事件 行为 行動"
)
"""What the user did."""
AMOUNT = named(
    "qty quantity amount paid spent spend revenue plays playcount playtime listens count cnt times units duration dwell "
    "watchtime watchratio watch minutes seconds msplayed hours progress completion percent listened played total "
    "strength weight sales gmv payment tip secs viewtime "
    "menge anzahl stuckzahl betrag umsatz dauer bezahlt quantite montant duree paye "
    "cantidad importe duracion pagado quantidade duracao pago quantita importo durata pagato "
    "aantal bedrag duur betaald ilosc kwota количество сумма 数量 金额 金額 수량"
)
"""How much of it, or for how long."""
TEXT = named(
    "review reviews comment comments reviewtext summary feedback text kommentar rezension commentaire avis "
    "comentario resena opinion recensione commento recensie komentarz отзыв 评论 コメント 리뷰"
)
"""What the user said of it."""

_BEFORE = named("previous prev last past history before avg average mean expected prior item mode so far since")
_CONTEXT = named(
    "hour weekday weekend workday weekdays month day daytime daypart quarter season holiday isweekend isholiday ishome "
    "mobile app device os web online logged loggedin member subscriber premium new returning first "
    "position rank slot page depth screen people guests persons party children adults nights rooms "
    "stunde wochentag wochenende monat tag feiertag heure jour mois weekdag hora dia mes giorno mese ora"
)
_OUTCOME = RATING | LABEL | NEGATIVE | EVENT | AMOUNT | TEXT


def words(name: str) -> tuple[str, ...]:
    """The words that a column's name is made of, in lower case and without accents.

    `unixReviewTime` and `unix_review_time` have the same three.
    """
    decomposed = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
    plain = "".join(one for one in decomposed if not unicodedata.combining(one)) if not name.isascii() else name
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", unicodedata.normalize("NFC", plain))
    return tuple(word.lower() for word in re.split(r"[\W_]+", apart) if word)


def outcome_word(name: str, among: frozenset[str] = _OUTCOME) -> str:
    """The word of a name that speaks of an outcome; empty where none does, or another says that it was known before."""
    parts = words(name)
    if _BEFORE & set(parts):
        return ""
    return next((word for word in (*parts, "".join(parts)) if word in among), "")


def known_before(name: str) -> bool:
    """Whether a column's name says that it holds what a request knows: an hour, a device, a place on the page."""
    return bool((_BEFORE | _CONTEXT) & {*words(name), "".join(words(name))})
