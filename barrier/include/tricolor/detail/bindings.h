// Two tables that C++20 cannot spell as templates: hands off. A pack expansion makes neither an
// empty pair of braces nor a structured binding, so they are written out up to kMaxMembers. See
// aggregate.h.
#pragma once

#include <cstddef>

namespace tricolor::detail {

inline constexpr std::size_t kMaxMembers = 64;

// Can a T be initialised from kBraces empty pairs of braces, and then one value of each of V?
template <class T, std::size_t kBraces, class... V>
inline constexpr bool takes_braces = false;

// bind(t, f) is f(m...) with the kMembers members of the object t.
template <std::size_t kMembers>
struct Bindings;

// clang-format off
template <class T, class... V> inline constexpr bool takes_braces<T, 0, V...> =
    requires { T{V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 1, V...> =
    requires { T{{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 2, V...> =
    requires { T{{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 3, V...> =
    requires { T{{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 4, V...> =
    requires { T{{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 5, V...> =
    requires { T{{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 6, V...> =
    requires { T{{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 7, V...> =
    requires { T{{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 8, V...> =
    requires { T{{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 9, V...> =
    requires { T{{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 10, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 11, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 12, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 13, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 14, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 15, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 16, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 17, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 18, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 19, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 20, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 21, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 22, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 23, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 24, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...};
    };
template <class T, class... V> inline constexpr bool takes_braces<T, 25, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 26, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, {},
    V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 27, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, {},{},
    V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 28, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 29, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 30, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 31, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 32, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 33, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 34, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 35, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 36, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 37, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 38, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 39, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 40, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 41, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 42, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 43, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 44, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 45, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 46, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 47, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 48, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 49, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 50, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 51, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, {}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 52, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, {},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 53, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, {},{},{}, V{}...};
    };
template <class T, class... V> inline constexpr bool takes_braces<T, 54, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, {},{},{},{},
    V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 55, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, {},{},{},{},{},
    V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 56, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, {},{},{},{},{},{},
    V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 57, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 58, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 59, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 60, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 61, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 62, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 63, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 64, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };
template <class T, class... V> inline constexpr bool takes_braces<T, 65, V...> =
    requires { T{{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},
    {},{},{},{},{},{},{},{},{},{},{},{},{},{},{}, V{}...}; };

template <> struct Bindings<0> { static constexpr auto bind(auto&, auto f) { return f(); } };
template <> struct Bindings<1> { static constexpr auto bind(auto& t, auto f) {
    auto& [a] = t; return f(a); } };
template <> struct Bindings<2> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b] = t; return f(a, b); } };
template <> struct Bindings<3> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c] = t; return f(a, b, c); } };
template <> struct Bindings<4> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d] = t; return f(a, b, c, d); } };
template <> struct Bindings<5> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e] = t; return f(a, b, c, d, e); } };
template <> struct Bindings<6> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g] = t; return f(a, b, c, d, e, g); } };
template <> struct Bindings<7> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h] = t; return f(a, b, c, d, e, g, h); } };
template <> struct Bindings<8> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i] = t; return f(a, b, c, d, e, g, h, i); } };
template <> struct Bindings<9> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j] = t; return f(a, b, c, d, e, g, h, i, j); } };
template <> struct Bindings<10> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k] = t; return f(a, b, c, d, e, g, h, i, j, k); } };
template <> struct Bindings<11> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l] = t; return f(a, b, c, d, e, g, h, i, j, k, l); } };
template <> struct Bindings<12> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m); } };
template <> struct Bindings<13> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n); } };
template <> struct Bindings<14> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o); } };
template <> struct Bindings<15> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p); } };
template <> struct Bindings<16> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q); } };
template <> struct Bindings<17> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r); } };
template <> struct Bindings<18> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s); } };
template <> struct Bindings<19> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u); } };
template <> struct Bindings<20> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v); } };
template <> struct Bindings<21> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w); } };
template <> struct Bindings<22> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x); } };
template <> struct Bindings<23> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y); } };
template <> struct Bindings<24> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z); } };
template <> struct Bindings<25> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A); } };
template <> struct Bindings<26> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B); } };
template <> struct Bindings<27> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C); } };
template <> struct Bindings<28> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D); }
      };
template <> struct Bindings<29> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E] =
      t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E);
      } };
template <> struct Bindings<30> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F]
      = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F); } };
template <> struct Bindings<31> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G); } };
template <> struct Bindings<32> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H); } };
template <> struct Bindings<33> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I); } };
template <> struct Bindings<34> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J); } };
template <> struct Bindings<35> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K); } };
template <> struct Bindings<36> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L); } };
template <> struct Bindings<37> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M); } };
template <> struct Bindings<38> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N); } };
template <> struct Bindings<39> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O); } };
template <> struct Bindings<40> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P); } };
template <> struct Bindings<41> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q); } };
template <> struct Bindings<42> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R); } };
template <> struct Bindings<43> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S); } };
template <> struct Bindings<44> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T); } };
template <> struct Bindings<45> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U); } };
template <> struct Bindings<46> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V); } };
template <> struct Bindings<47> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W); } };
template <> struct Bindings<48> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X); } };
template <> struct Bindings<49> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y); } };
template <> struct Bindings<50> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z); } };
template <> struct Bindings<51> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0); } };
template <> struct Bindings<52> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1); } };
template <> struct Bindings<53> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2); } };
template <> struct Bindings<54> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3); } };
template <> struct Bindings<55> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4); } };
template <> struct Bindings<56> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5); } };
template <> struct Bindings<57> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6); }
      };
template <> struct Bindings<58> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7] =
      t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6,
      a7); } };
template <> struct Bindings<59> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8); } };
template <> struct Bindings<60> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8, a9] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8, a9); } };
template <> struct Bindings<61> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8, a9, a10] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8, a9, a10); } };
template <> struct Bindings<62> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8, a9, a10, a11] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8, a9, a10, a11); } };
template <> struct Bindings<63> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8, a9, a10, a11, a12] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8, a9, a10, a11, a12); } };
template <> struct Bindings<64> { static constexpr auto bind(auto& t, auto f) {
    auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E, F,
      G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8, a9, a10, a11, a12, a13] = t;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q, r, s, u, v, w, x, y, z, A, B, C, D, E,
      F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, a0, a1, a2, a3, a4, a5, a6, a7,
      a8, a9, a10, a11, a12, a13); } };
// clang-format on

}  // namespace tricolor::detail
