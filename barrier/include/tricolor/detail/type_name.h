// The name of a type as the compiler spells it: hands off.
#pragma once

#include <string_view>

namespace tricolor::detail {

template <class T>
constexpr const char* spell_function() {
  return __PRETTY_FUNCTION__;
}

// In static storage.
template <class T>
constexpr std::string_view type_name() {
  // "constexpr const char* ...spell_function() [with T = NAME]", or "[T = NAME]".
  const std::string_view function = spell_function<T>();
  const std::size_t start = function.find("T = ") + 4;
  return function.substr(start, function.rfind(']') - start);
}

static_assert(type_name<int>() == "int");

}  // namespace tricolor::detail
